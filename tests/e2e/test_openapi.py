"""Requests made out of the OpenAPI description, right and wrong ones: nothing is answered that it does not say."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, settings
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


SCHEMA = from_dict(described())


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
