"""A short crash run, and proof that the harness would notice."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from loadtest.crash.history import History, differences
from loadtest.crash.run import Options, run
from loadtest.crash.workload import Model, Operation, operation
from models import write_bundle
from tests.service.streams_case import models


def test_nothing_acknowledged_is_lost_when_the_server_is_killed(tmp_path: Path) -> None:
    """SIGKILL under load, restart, three times; then every stream is where a server that lived would have it."""
    arguments = []
    for name, model in models().items():
        (tmp_path / f"{name}.safetensors").write_bytes(write_bundle(model))
        arguments += ["--model", f"{name}={tmp_path / name}.safetensors"]
    options = Options(cycles=3, streams=4, seed=1, kill_after=(10, 80), arguments=tuple(arguments))
    report = asyncio.run(run(options, tmp_path))
    assert report.violations == []
    assert report.kills == 3
    assert report.operations > 10
    assert report.unanswered > 0
    assert report.worst_difference < 1e-5


def answer(version: int, rows: int) -> dict[str, Any]:
    """What the harness looks at in an answer."""
    return {"stream_version": version, "rows_seen": rows}


def change(number: int, rows: int = 2) -> Operation:
    """Feedback of some rows."""
    return Operation(number, {"inputs": [[0.0]] * rows})


@pytest.mark.parametrize(
    ("found", "wrong"),
    [
        (answer(2, 4), False),  # the unanswered change did not happen
        (answer(3, 6), False),  # it did
        (answer(1, 2), True),  # an acknowledged one is gone
        (answer(3, 5), True),  # half of the unanswered one is there
        (answer(2, 6), True),
        (answer(4, 8), True),  # something was learned twice
    ],
)
def test_a_restart_may_keep_or_drop_the_unanswered_change_only(found: dict[str, Any], *, wrong: bool) -> None:
    """Everything acknowledged must be there, the rest wholly or not at all."""
    history = History()
    assert history.acknowledge(change(0), answer(1, 2)) == []
    assert history.acknowledge(change(1), answer(2, 4)) == []
    history.pending = change(2)
    assert bool(history.recover(found)) == wrong


def test_an_answer_out_of_order_is_noticed() -> None:
    """Revisions are acknowledged one after another."""
    history = History()
    assert history.acknowledge(change(0), answer(2, 2))
    assert history.acknowledge(change(1), answer(2, 5))


def ended(**changes: Any) -> dict[str, Any]:
    """A stream's end."""
    info = {"stream_version": 1, "rows_seen": 2, "state": "new", "window_rows": 2, "model_version": 1}
    event = {
        "revision": 1,
        "kind": "drift",
        "detector": "llr_cusum",
        "change_row": 1,
        "action": "readapt",
        "rows_used": 1,
    }
    base = {"info": info, "events": [event], "predicted": {"predictions": [1.0, 0.0], "std": [0.5, 0.5]}}
    return base | changes


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({}, True),
        ({"predicted": {"predictions": [1.000005, 1e-6], "std": [0.5, 0.5]}}, True),
        ({"predicted": {"predictions": [1.0001, 0.0], "std": [0.5, 0.5]}}, False),
        ({"predicted": {"predictions": [1.0], "std": [0.5]}}, False),
        ({"events": []}, False),
        ({"info": ended()["info"] | {"rows_seen": 3}}, False),
    ],
)
def test_any_difference_from_the_living_run_is_noticed(changes: dict[str, Any], *, same: bool) -> None:
    """Counts and events exactly, predictions within 1e-5 of their size or spread."""
    assert (differences(ended(**changes), ended())[0] == []) == same


def test_the_workload_is_a_function_of_its_seed() -> None:
    """A failing run can be repeated: the same arguments give the same operations, with ids of their own."""
    model = Model(
        "m", "classification", ({"kind": "numeric"}, {"kind": "categorical", "categories": ["a"]}), ("x", "y")
    )
    first = [operation(model, 3, 0, number) for number in range(100)]
    assert first == [operation(model, 3, 0, number) for number in range(100)]
    assert any(each.body is None for each in first)
    ids = [name for each in first if each.body for name in each.body["ids"]]
    assert len(ids) == len(set(ids))
