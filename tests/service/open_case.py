"""Helpers of the Open Inference Protocol's tests: requests, answers, and a model with categories."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from models import Model
from models.types import Feature, ModelSpec, Target
from service.app import create_app
from service.config import Settings
from service.store import MemoryStore
from service.streams import Streams
from tests.models.examples import HEAD, untrained
from tests.service.http_case import NOW


def matrix(rows: list[list[float]], datatype: str = "FP64") -> dict[str, Any]:
    """The tensor of all features."""
    return {"name": "inputs", "shape": [len(rows), len(rows[0])], "datatype": datatype, "data": rows}


def column(name: str, values: list[Any], datatype: str = "FP64") -> dict[str, Any]:
    """A tensor of one value a row."""
    return {"name": name, "shape": [len(values)], "datatype": datatype, "data": values}


def body_of(*inputs: dict[str, Any], stream: str | int | None = None, **parameters: Any) -> dict[str, Any]:
    """A request."""
    stated = parameters | ({} if stream is None else {"sequence_id": stream})
    return {"inputs": list(inputs), "parameters": stated}


async def post(client: httpx.AsyncClient, path: str, body: Mapping[str, Any]) -> Any:
    """The answer to a request that is taken."""
    answer = await client.post(f"/v2/models/{path}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def data_of(reply: Any, name: str) -> Any:
    """An output's data."""
    return next(output["data"] for output in reply["outputs"] if output["name"] == name)


def shop_model(target: Target, **more: Any) -> Model:
    """A model with a value that may be missing and a category."""
    features = (Feature("a", missing=True), Feature("kind", "categorical", categories=("x", "y", "True", "3")))
    task: Any = "classification" if target.classes or target.ways else "regression"
    return untrained(ModelSpec("shop", task, features, target, (HEAD,), **more))


@asynccontextmanager
async def serving_shop(
    target: Target, store: MemoryStore | None = None, *, name: str = "shop"
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server that has a shop model."""
    settings = Settings(data_dir=Path("unused"))
    made = Streams(settings, store or MemoryStore(), {name: shop_model(target)}, lambda: NOW)
    app = create_app(settings, streams=made)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
    ):
        yield client
