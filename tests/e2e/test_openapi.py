"""Requests made out of the OpenAPI description, right and wrong ones: nothing is answered that it does not say.

``EXAMPLES=N`` (``make openapi``) takes so many of each operation, and as many walks from answer to answer.
"""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from schemathesis import Response
from schemathesis.openapi import from_dict
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from loadtest.server import serving
from service.app import create_app
from service.config import Settings
from service.store import MemoryStore
from service.streams import Streams

KEY = "a bootstrap key of these tests"
EXAMPLES = int(os.environ.get("EXAMPLES", "15"))
"""Of each operation."""
PARTLY = ("/v1/predict", "/v1/feedback")
"""Items that are wrong are refused one by one, within an answer 200."""
CHOSEN = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)
STEPS = 20
WALKED = "^/v1/streams"
CREATED, BAD = 201, 400
MODEL, NAMES, IDS = "sinusoid", ["walk-1", "walk-2"], ["one", "two"]
DONE = {"put_stream", "predict", "feedback", "labels", "reset", "roll_back", "export", "delete_stream"}
"""What the walks have to get done, or they are none."""
WALK = settings(
    CHOSEN,
    stateful_step_count=STEPS,
    phases=[Phase.generate],
)


class Running(NamedTuple):
    """A server that runs, and what it is sent beside each request."""

    url: str
    headers: dict[str, str]


def described() -> dict[str, Any]:
    """The description, made without a server."""
    given = Settings(data_dir=Path("unused"))
    app = create_app(given, streams=Streams(given, MemoryStore(), {}, lambda: 0.0))
    app.state.context.streams._threads.close()
    found: dict[str, Any] = app.openapi()
    for operations in found["paths"].values():
        for operation in operations.values():
            operation.pop("security", None)  # who is let in is a test of its own
    endless = found["paths"]["/v1/streams/{stream}/events"]["get"]["responses"]["200"]["content"]
    assert endless.pop("text/event-stream")  # followed in a test of its own: it has no end
    return found


def narrowed() -> dict[str, Any]:
    """The description, made narrower to what a model takes and to two streams, so that most requests do something."""
    document = described()
    schemas = document["components"]["schemas"]
    one = {"type": "array", "minItems": 1, "maxItems": 1}
    number = {"type": "number", "minimum": -5, "maximum": 5}
    rows, ids = {**one, "items": {**one, "items": number}}, {**one, "items": {"type": "string", "enum": IDS}}
    schemas["StreamBody"]["properties"] |= {"model": {"type": "string", "enum": [MODEL]}, "config": {"type": "null"}}
    schemas["PredictBody"]["properties"] |= {"inputs": rows, "ids": ids}
    schemas["FeedbackBody"]["properties"] |= {"inputs": rows, "targets": {**one, "items": number}, "ids": ids}
    schemas["FeedbackBody"]["required"] = ["inputs", "targets"]
    del schemas["FeedbackBody"]["properties"]["times"]
    schemas["LabelBody"]["properties"] |= {"id": {"type": "string", "enum": IDS}, "target": number}
    schemas["RollbackBody"] = {
        "type": "object",
        "properties": {"revision": {"enum": [0, 1, 2]}},
        "required": ["revision"],
        "additionalProperties": False,
    }
    for operations in document["paths"].values():
        for operation in operations.values():
            parameters = [each for each in operation.get("parameters", []) if each["name"] != "x-stream-id"]
            for parameter in parameters:
                if parameter["name"] == "stream":
                    parameter["schema"] = {"type": "string", "enum": NAMES}
            operation["parameters"] = parameters
    return document


SCHEMA = from_dict(described())
MACHINE: Any = from_dict(narrowed()).include(path_regex=WALKED).as_state_machine()


@pytest.fixture(scope="module", params=["open", "keys"])
def running(request: pytest.FixtureRequest) -> Iterator[Running]:
    """A server without keys, and one with."""
    headers = {"Authorization": f"Bearer {KEY}"} if request.param == "keys" else {}
    environ = {"ACCLIMATE_REFUSAL_SECONDS": "0"} | ({"ACCLIMATE_BOOTSTRAP_KEY": KEY} if headers else {})
    with serving((), environ) as server:
        yield Running(server.url, headers)


@pytest.mark.filterwarnings("ignore:Skipped test cases with unsupported payload")  # uploads have tests of their own
@SCHEMA.parametrize()
@CHOSEN
def test_every_operation_answers_as_described(case: Any, running: Running) -> None:
    """All checks but one: what a schema allows is not all that a model takes, and an unknown stream is 404."""
    left_out = [positive_data_acceptance]
    if case.operation.path in PARTLY:
        left_out.append(negative_data_rejection)
    case.call_and_validate(base_url=running.url, headers=running.headers, excluded_checks=left_out, timeout=30)


@pytest.mark.filterwarnings("ignore:Skipped test cases with unsupported payload")
def test_what_an_answer_leads_to_answers_as_described(running: Running) -> None:
    """As with requests of their own; and all that streams can do was really done to one."""
    done: Counter[str] = Counter()

    class Walk(MACHINE):  # type: ignore[misc]  # made at run time
        """One walk after the other."""

        def setup(self) -> None:
            """Each begins with new streams, so that it goes the same way whenever it is repeated."""
            with httpx.Client(base_url=running.url, headers=running.headers, trust_env=False) as client:
                for name in NAMES:
                    client.delete(f"/v1/streams/{name}")
                    assert client.put(f"/v1/streams/{name}", json={"model": MODEL}).status_code == CREATED

        def get_call_kwargs(self, case: Any) -> dict[str, Any]:
            """Where the server is."""
            del case
            return {"base_url": running.url, "headers": running.headers, "timeout": 30}

        def validate_response(self, response: Response, case: Any, **_: Any) -> None:
            """All checks but those of what is accepted and refused: this description says less than is taken."""
            left_out = [positive_data_acceptance, negative_data_rejection]
            case.validate_response(response, excluded_checks=left_out, headers=running.headers)
            if response.status_code < BAD:
                done[case.operation.definition.raw["operationId"]] += 1

    run_state_machine_as_test(Walk, settings=WALK)
    assert done.keys() >= DONE, f"never done: {sorted(DONE - done.keys())}"
