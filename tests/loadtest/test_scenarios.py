"""The requests of a run fit any served model."""

from typing import Any

import numpy as np
import orjson
import pytest

from loadtest.scenarios import SCENARIOS, Shape, World, build, feedback_share, first_rows
from loadtest.schedule import plan

FEATURES = [{"name": "x", "kind": "numeric"}, {"name": "shop", "kind": "categorical"}]


def bodies(shape: Shape, scenario: str) -> list[tuple[str, Any]]:
    """Paths and decoded bodies of 20 requests of two rows."""
    rng = np.random.default_rng(0)
    share = feedback_share(scenario, 0.5)
    schedule = plan(10.0, 2.0, warmup_s=0.0, streams=3, zipf=0.0, feedback_share=share, rng=rng)
    requests = build(schedule, ["a", "b", "c"], World.draw(3, rng), shape, rows=2, rng=rng)
    return [(request.path, orjson.loads(request.body)) for request in requests]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_request_carries_rows_in_the_models_order(scenario: str) -> None:
    """Each body has the asked number of rows, each row a value of the right kind for each feature."""
    made = bodies(Shape.of({"features": FEATURES, "classes": None}, 0.5), scenario)
    assert len(made) == 20
    for _, body in made:
        assert [[type(value) for value in row] for row in body["inputs"]] == [[float, str]] * 2


@pytest.mark.parametrize(("scenario", "expected"), [("predict", 0), ("feedback", 20), ("mixed", 10)])
def test_scenarios_send_their_share_of_feedback(scenario: str, expected: int) -> None:
    """Feedback goes to the feedback path and carries a target for each row; predictions carry none."""
    made = bodies(Shape.of({"features": FEATURES}, 0.5), scenario)
    feedback = [body for path, body in made if path.endswith("/feedback")]
    assert len(feedback) == expected
    assert all(len(body["targets"]) == 2 for body in feedback)
    assert not any("targets" in body for path, body in made if path.endswith("/predict"))


@pytest.mark.parametrize(("example", "width"), [(0.5, None), ([0.5, 0.1, 0.2], 3)])
def test_targets_have_the_models_width(example: Any, width: int | None) -> None:
    """A bare number for one output, a list of numbers for several."""
    targets = bodies(Shape.of({"features": FEATURES}, example), "feedback")[0][1]["targets"]
    assert [len(target) if isinstance(target, list) else None for target in targets] == [width, width]


def test_classes_are_taken_from_the_model() -> None:
    """For classification every target is one of the served labels, whatever its type."""
    shape = Shape.of({"features": FEATURES, "classes": ["UP", "DOWN"]}, "UP")
    seen = {target for _, body in bodies(shape, "feedback") for target in body["targets"]}
    assert seen == {"UP", "DOWN"}


def test_streams_can_start_without_labels() -> None:
    """With no labelled rows asked for, a stream is only created."""
    rng = np.random.default_rng(0)
    shape = Shape.of({"features": FEATURES}, 0.5)
    assert first_rows(["a"], World.draw(1, rng), shape, labelled=0, rng=rng) == {"a": None}
    some = first_rows(["a"], World.draw(1, rng), shape, labelled=4, rng=rng)["a"]
    assert some is not None
    assert len(orjson.loads(some.body)["targets"]) == 4
