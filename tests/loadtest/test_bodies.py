"""The requests of a run fit any served model."""

from typing import Any

import numpy as np
import orjson
import pytest

from loadtest.bodies import Request, Shape, World, build, lessons, lines
from loadtest.schedule import plan

FEATURES = [{"name": "x", "kind": "numeric"}, {"name": "shop", "kind": "categorical"}]


def bodies(shape: Shape, share: float) -> list[tuple[str, Any]]:
    """Paths and decoded bodies of 20 requests of two rows."""
    rng = np.random.default_rng(0)
    schedule = plan(10.0, 2.0, warmup_s=0.0, streams=3, zipf=0.0, feedback_share=share, rng=rng)
    requests = build(schedule, ["a", "b", "c"], World.draw(3, rng), shape, rows=2, rng=rng)
    return [(request.path, orjson.loads(request.body)) for request in requests]


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_every_request_carries_rows_in_the_models_order(share: float) -> None:
    """Each body has the asked number of rows, each row a value of the right kind for each feature."""
    made = bodies(Shape.of({"features": FEATURES, "classes": None}, 0.5), share)
    assert len(made) == 20
    for _, body in made:
        assert [[type(value) for value in row] for row in body["inputs"]] == [[float, str]] * 2


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (1.0, 20), (0.5, 10)])
def test_requests_have_their_share_of_feedback(share: float, expected: int) -> None:
    """Feedback goes to the feedback path and carries a target for each row; predictions carry none."""
    made = bodies(Shape.of({"features": FEATURES}, 0.5), share)
    feedback = [body for path, body in made if path.endswith("/feedback")]
    assert len(feedback) == expected
    assert all(len(body["targets"]) == 2 for body in feedback)
    assert not any("targets" in body for path, body in made if path.endswith("/predict"))


@pytest.mark.parametrize(("example", "width"), [(0.5, None), ([0.5, 0.1, 0.2], 3)])
def test_targets_have_the_models_width(example: Any, width: int | None) -> None:
    """A bare number for one output, a list of numbers for several."""
    targets = bodies(Shape.of({"features": FEATURES}, example), 1.0)[0][1]["targets"]
    assert [len(target) if isinstance(target, list) else None for target in targets] == [width, width]


def test_classes_are_taken_from_the_model() -> None:
    """For classification every target is one of the served labels, whatever its type."""
    shape = Shape.of({"features": FEATURES, "classes": ["UP", "DOWN"]}, "UP")
    seen = {target for _, body in bodies(shape, 1.0) for target in body["targets"]}
    assert seen == {"UP", "DOWN"}


def test_lessons_and_lines_create_their_stream() -> None:
    """Both name stream and model, and carry a target for each row."""
    rng = np.random.default_rng(0)
    shape, world = Shape.of({"features": FEATURES}, 0.5), World.draw(2, rng)
    first, second = lessons(["a", "b"], "reg", world, shape, labelled=4, rng=rng)
    assert [(each["stream"], each["model"], len(each["targets"])) for each in (first, second)] == [
        ("a", "reg", 4),
        ("b", "reg", 4),
    ]
    sent = [orjson.loads(line) for line in lines("a", "reg", first["inputs"], first["targets"]).splitlines()]
    assert [line["input"] for line in sent] == first["inputs"]
    assert {line["stream"] for line in sent} == {"a"}


def test_a_request_s_bytes_are_whole() -> None:
    """Its head names path, host and length, and the body follows."""
    head, _, body = Request("/v1/x", b"{}").raw("127.0.0.1:80").partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/x HTTP/1.1\r\nHost: 127.0.0.1:80\r\n")
    assert head.endswith(b"content-length: 2")
    assert body == b"{}"
