"""What the Open Inference Protocol says of models: tensors, versions, statistics, health."""

from models.types import Target
from service.store import MemoryStore
from tests.service.http_case import NOW, assert_open_error, run_async, serving
from tests.service.open_case import body_of, column, matrix, post, serving_shop
from tests.service.streams_case import PROBE

TARGETS = [1.0, -2.0, 3.0]


@run_async
async def test_metadata_lists_what_a_request_is_made_of() -> None:
    """A matrix of numbers, or a tensor a feature where some are categories; outputs by the task."""
    async with serving() as (client, _):
        found = (await client.get("/v2/models/cls")).json()
        assert found == (await client.get("/v2/models/cls/versions/1")).json()
        assert found == {
            "name": "cls",
            "versions": ["1"],
            "platform": "acclimate",
            "inputs": [{"name": "inputs", "datatype": "FP64", "shape": [-1, 2]}],
            "outputs": [
                {"name": "predictions", "datatype": "BYTES", "shape": [-1]},
                {"name": "probabilities", "datatype": "FP64", "shape": [-1, 2]},
            ],
        }
        assert (await client.get("/v2/models")).json() == {"models": ["cls", "reg"]}
        names = [output["name"] for output in (await client.get("/v2/models/reg")).json()["outputs"]]
        assert names == ["predictions", "std"]
    async with serving_shop(Target("y", (0.0, 0.0), (1.0, 1.0))) as client:
        found = (await client.get("/v2/models/shop")).json()
        assert found["inputs"] == [
            {"name": "a", "datatype": "FP64", "shape": [-1]},
            {"name": "kind", "datatype": "BYTES", "shape": [-1]},
        ]
        assert [output["shape"] for output in found["outputs"]] == [[-1, 2], [-1, 2]]


@run_async
async def test_a_version_answers_itself() -> None:
    """The start of each version, by its own tensors; a stream only by the version that it is bound to."""
    store = MemoryStore()
    async with serving_shop(Target("y"), store):
        pass
    async with serving_shop(Target("y", classes=("n", "p")), store) as client:
        versions = [(await client.get(f"/v2/models/shop/versions/{number}")).json() for number in (1, 2)]
        assert [found["versions"] for found in versions] == [["1", "2"], ["1", "2"]]
        assert [found["outputs"][1]["name"] for found in versions] == ["std", "probabilities"]
        assert (await client.get("/v2/models/shop")).json() == versions[0]
        kind = column("kind", ["x"], "BYTES")
        for number, output in ((1, "std"), (2, "probabilities")):
            reply = await post(client, f"shop/versions/{number}/infer", body_of(kind))
            assert (reply["model_version"], reply["outputs"][1]["name"]) == (str(number), output)
            assert reply["parameters"]["adapted"] is False
        await post(client, "shop/learn", body_of(kind, column("targets", [1.0]), stream="s"))
        bound = await post(client, "shop/versions/1/infer", body_of(kind, stream="s"))
        assert bound["parameters"]["adapted"] is True
        other = await client.post("/v2/models/shop/versions/2/infer", json=body_of(kind, stream="s"))
        assert "version 1" in assert_open_error(other, 409)
        listed = (await client.post("/v2/repository/index", json={"ready": True})).json()
        assert [(one["name"], one["version"], one["state"]) for one in listed] == [
            ("shop", "1", "READY"),
            ("shop", "2", "READY"),
        ]
        for path in ("", "/ready", "/stats", "/infer"):
            for unknown in ("3", "0", "x", "²", "1" * 50):
                url = f"/v2/models/shop/versions/{unknown}{path}"
                answer = await (client.post(url, json=body_of(kind)) if path == "/infer" else client.get(url))
                assert_open_error(answer, 404)


@run_async
async def test_statistics_count_what_was_asked() -> None:
    """Rows, computations and requests, by whatever route; durations that fit each other; failures by themselves."""
    async with serving() as (client, _):
        (untouched,) = (await client.get("/v2/models/reg/stats")).json()["model_stats"]
        assert (untouched["last_inference"], untouched["inference_count"]) == (0, 0)
        for _ in range(2):
            await post(client, "reg/infer", body_of(matrix(PROBE)))
        await client.post("/v1/models/reg/predict", json={"inputs": PROBE[:1]})
        await client.post("/v2/models/reg/infer", json=body_of(matrix([[1.0, None]])))  # type: ignore[list-item]
        await post(client, "reg/learn", body_of(matrix(PROBE), column("targets", TARGETS), stream="s"))
        (found,) = (await client.get("/v2/models/reg/versions/1/stats")).json()["model_stats"]
        assert (found["name"], found["version"], found["last_inference"]) == ("reg", "1", int(NOW * 1e3))
        assert (found["inference_count"], found["execution_count"]) == (7, 3)
        spent = found["inference_stats"]
        stages = [spent[name] for name in ("queue", "compute_input", "compute_infer", "compute_output")]
        assert {stage["count"] for stage in (*stages, spent["success"])} == {3}
        assert all(stage["ns"] > 0 for stage in stages)
        assert sum(stage["ns"] for stage in stages) <= spent["success"]["ns"]
        assert spent["fail"]["count"] == 1
        assert spent["fail"]["ns"] > 0
        everything = (await client.get("/v2/models/stats")).json()["model_stats"]
        assert [one["name"] for one in everything] == ["cls", "reg"]
        assert everything[1] == found


@run_async
async def test_health_is_that_of_the_service() -> None:
    """Live always; not ready once the service was told to stop, and its models neither."""
    async with serving() as (client, _):
        assert (await client.get("/v2/health/live")).json() == {"live": True}
        assert (await client.get("/v2/health/ready")).json() == {"ready": True}
        assert (await client.get("/v2/models/reg/versions/1/ready")).json() == {"name": "reg", "ready": True}
        client._transport.app.state.context.draining = True  # type: ignore[attr-defined]  # what SIGTERM sets
        for path in ("health/ready", "models/reg/ready", "models/reg/versions/1/ready"):
            assert_open_error(await client.get(f"/v2/{path}"), 503)
        assert (await client.get("/v2/health/live")).status_code == 200
