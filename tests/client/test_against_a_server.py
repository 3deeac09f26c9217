"""The client and a real server: everything that can be asked, and River's own evaluation over it."""

import asyncio
import math
import re
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import polars as pl
import pytest
from river import evaluate, metrics

from loadtest.server import serving
from models import FloatArray
from service.client import (
    AsyncClient,
    Client,
    ConflictError,
    InvalidError,
    NotFoundError,
    OnlineRegressor,
    UnauthorizedError,
)

KEY = "a bootstrap key of these tests"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server that asks for a key."""
    with serving((), {"ACCLIMATE_BOOTSTRAP_KEY": KEY, "ACCLIMATE_WEBHOOK_PRIVATE": "1"}) as server:
        yield server.url


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    """A client of it."""
    with Client(url, KEY) as made:
        yield made


def rows(count: int, seed: int = 0) -> tuple[FloatArray, FloatArray]:
    """Points of a sine."""
    x = np.random.default_rng(seed).uniform(-5, 5, size=(count, 1))
    return x, 3 * np.sin(x[:, 0])


def test_a_stream_from_its_creation_to_its_end(client: Client) -> None:
    """Predict, teach, label late, look, go back, export, import, delete."""
    stream = client.stream("life")
    assert stream.create("sinusoid", metadata={"site": "north"}).metadata == {"site": "north"}
    x, y = rows(20)
    learned = stream.feedback(x, y, ids=[f"r{number}" for number in range(20)], return_predictions=True)
    assert (learned.accepted, len(learned.predictions or [])) == (20, 20)
    assert stream.feedback(x[:1], y[:1], ids=["r0"]).duplicates == 1
    said = stream.predict(pl.DataFrame({"x": [1.0]}), ids=["late"], interval=0.9)
    assert said.intervals is not None
    assert stream.labels({"late": 3 * math.sin(1.0), "nosuch": 1.0}).unknown == ["nosuch"]
    assert stream.rollback(1).restored == 1
    assert [revision.kind for revision in stream.revisions()] == ["feedback", "labels", "rollback"]
    file, before = stream.snapshot(), stream.predict([[0.5]]).predictions
    assert client.stream("copy").restore(file).rows_seen == 21
    assert client.stream("copy").predict([[0.5]]).predictions == before
    assert stream.reset().stream_version == 4
    assert [event.kind for event in stream.events()] == ["rollback", "reset"]
    assert {info.stream for info in client.streams()} >= {"life", "copy"}
    stream.delete()
    with pytest.raises(NotFoundError):
        stream.state()


def test_the_same_key_learns_once(client: Client) -> None:
    """And another body under it is refused."""
    stream = client.stream("once")
    stream.create("sinusoid")
    x, y = rows(2)
    assert not stream.feedback(x, y, key="k").replayed
    assert stream.feedback(x, y, key="k").replayed
    with pytest.raises(InvalidError, match="Idempotency-Key"):
        stream.feedback(x, y + 1, key="k")


def test_uploads_of_frames_and_of_rows_without_an_end(client: Client) -> None:
    """Each row once, also when all of it is sent again; to many streams, which are created."""
    stream = client.stream("loaded")
    stream.create("sinusoid")
    x, y = rows(250)
    told: list[tuple[int, int | None]] = []
    frame = pl.DataFrame({"x": x[:, 0], "y": y})
    for accepted in (250, 0):
        found = stream.upload(frame, target="y", upload="u", progress=lambda *each: told.append(each))
        assert (found.rows, found.accepted) == (250, accepted)
    assert told[0] == (250, 250)
    assert stream.upload_offset("u") == 250
    assert stream.upload_offset("nosuch") == 0
    many = ({"stream": f"m{n % 3}", "model": "sinusoid", "input": [0.1], "target": 0.3} for n in range(30))
    assert client.upload(many, batch=4).accepted == 30
    results = client.predict([{"stream": "m0", "inputs": [[0.1]]}, {"stream": "nosuch", "inputs": [[0.1]]}])
    assert [isinstance(result, NotFoundError) for result in results] == [False, True]
    taught = client.feedback([{"stream": "m1", "inputs": np.array([[0.1]]), "targets": [0.3]}])
    assert not isinstance(taught[0], Exception)


def test_models_and_webhooks(client: Client, tmp_path: Path) -> None:
    """A version is added, activated and deleted with its model; a webhook comes and goes."""
    del tmp_path
    bundle = Path("models/shipped/sinusoid.safetensors").read_bytes()
    model = client.model("other")
    assert model.upload(bundle) == 1
    with pytest.raises(ConflictError):
        model.predict([[0.5]])
    assert model.activate(1).active_version == 1
    assert model.predict([[0.5]]).stream is None
    assert {info.name for info in client.models()} >= {"sinusoid", "other"}
    assert model.info().task == "regression"
    model.delete()
    hook = client.add_webhook("http://127.0.0.1:9/", ["drift"])
    assert (hook.secret or "").startswith("whsec_")
    assert [each.id for each in client.webhooks()] == [hook.id]
    client.delete_webhook(hook.id)
    assert client.limits()["batch_rows_max"] == 10_000


def test_a_wrong_key_is_told(url: str) -> None:
    """As what it is."""
    with Client(url, "wrong") as client, pytest.raises(UnauthorizedError):
        client.models()


def test_events_are_followed_as_they_happen(url: str, client: Client) -> None:
    """By both clients."""
    stream = client.stream("followed")
    stream.create("sinusoid")
    stream.reset()
    blocking = stream.events(follow=True)
    assert next(blocking).revision == 1
    stream.reset()
    assert next(blocking).revision == 2

    async def follow() -> list[int]:
        async with AsyncClient(url, KEY) as other:
            found = []
            async for event in other.stream("followed").events(after=None, follow=True):
                found.append(event.revision)
                if len(found) == 3:
                    break
                if len(found) == 2:
                    await other.stream("followed").reset()
            return found

    assert asyncio.run(follow()) == [1, 2, 3]


def test_both_clients_ask_alike(url: str) -> None:
    """What one has taught the other predicts."""

    async def scenario() -> float:
        async with AsyncClient(url, KEY) as client:
            stream = client.stream("async")
            await stream.create("sinusoid")
            x, y = rows(10)
            assert (await stream.upload(x, y)).accepted == 10
            await stream.feedback(x[:1], y[:1])
            assert [revision.kind async for revision in stream.revisions()] == ["feedback"] * 2
            return float((await stream.predict([[0.5]])).predictions[0])

    found = asyncio.run(scenario())
    with Client(url, KEY) as client:
        assert client.stream("async").predict([[0.5]]).predictions[0] == found


def test_rivers_own_evaluation_runs_over_a_stream(url: str) -> None:
    """Progressive validation: a script switches by one line, and the stream learns."""
    model = OnlineRegressor(url, "river", "sinusoid", KEY)
    draw = Random(0)
    points = [{"x": draw.uniform(-5, 5)} for _ in range(60)]
    dataset: Any = ((x, 3 * math.sin(x["x"])) for x in points)
    error = evaluate.progressive_val_score(dataset=dataset, model=model, metric=metrics.MAE())
    late = [abs(model.predict_one(x) - 3 * math.sin(x["x"])) for x in points[-10:]]
    assert sum(late) / 10 < error.get()
    x, y = rows(5)
    assert model.partial_fit(x, y) is model
    assert len(model.predict(x)) == 5
    model.close()


def test_the_examples_of_the_documentation_run(capsys: pytest.CaptureFixture[str]) -> None:
    """All of them, in order, on a server without keys."""
    blocks = re.findall(r"(?m)^```python\n(.*?)^```", Path("docs/client.md").read_text("utf-8"), re.DOTALL)
    with serving() as server:
        text = "\n".join(blocks).replace("http://127.0.0.1:8000", server.url)
        exec(compile(text, "docs/client.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("40 ")
    assert printed[-1] == "500 0"
