"""The least that a FastAPI service of this shape costs: pydantic reads the same JSON, a constant is answered.

``python -m loadtest.bare PORT``, for ``loadtest.http_rate``, ``loadtest.latency`` and ``loadtest.bench``.
"""

import sys
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()


class Predict(BaseModel):
    """Rows."""

    inputs: list[list[float]]


class Feedback(Predict):
    """Rows with labels."""

    targets: list[float]


@app.get("/livez")
async def livez() -> dict[str, bool]:
    """Whether it answers."""
    return {"live": True}


@app.post("/v1/streams/{stream}/predict")
async def predict(stream: str, body: Predict) -> dict[str, Any]:
    """As many numbers as rows."""
    rows = len(body.inputs)
    stated = {"stream": stream, "model": "sinusoid", "model_version": 1, "stream_version": 3}
    return {**stated, "predictions": [0.123456789] * rows, "std": [0.5] * rows}


@app.post("/v1/streams/{stream}/feedback")
async def feedback(stream: str, body: Feedback) -> dict[str, Any]:
    """What a learned batch is answered with."""
    counts = {"accepted": len(body.targets), "duplicates": 0, "rows_seen": 9, "model_version": 1, "stream_version": 3}
    losses = {"loss": 0.12345, "score": 0.12345, "initial_loss": 1.2345, "initial_score": 1.2345}
    return {"stream": stream, **counts, **losses, "drift": None, "state": "stable"}


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), http="httptools", access_log=False, log_level="warning")
