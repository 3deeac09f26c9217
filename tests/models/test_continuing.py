"""Continual meta-learning: a model learned further on newer rows, and judged against itself."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models import (
    DataError,
    Model,
    Table,
    TrainProgress,
    TrainSettings,
    bundle_checksum,
    continue_training,
    continuing,
    join_tables,
    read_bundle,
    read_table,
    write_bundle,
)
from models.journal import Journal
from models.selection import candidates
from models.start import PREFIX
from models.starting import boosting_of, with_start
from models.trainer import _base_spec
from models.training import fit, split_table
from tests.models.examples import small_model


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short training run on one thread."""
    torch.set_num_threads(1)
    monkeypatch.setattr(continuing, "ITERATIONS", 100)


def silent(progress: TrainProgress) -> None:
    """Progress goes from 0 to 1."""
    assert 0.0 <= progress.fraction <= 1.0


def curve(folder: Path, rows: int, task: str = "regression") -> Table:
    """Streams that share one curve, which an untrained network does not know."""
    rng = np.random.default_rng(5)
    lines = ["t,shop,a,b,y"]
    for t in range(rows):
        a, b = rng.uniform(-2, 2, size=2).round(4)
        value = np.sin(2 * a) * b + 0.05 * rng.normal()
        lines.append(f"{t},shop-{t % 3},{a},{b},{('yes' if value > 0 else 'no') if task != 'regression' else value:}")
    file = folder / f"{task}-{rows}.csv"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read_table([file], target="y", stream_column="shop", time_column="t")


SETTINGS = TrainSettings(budget_minutes=60.0)


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_an_untrained_model_gets_better_and_says_where_it_comes_from(tmp_path: Path, task: str) -> None:
    """All but tensors and provenance stays, so that streams can take the new version over."""
    model = small_model(task)
    before = {name: tensor.clone() for name, tensor in model.meta.items()}
    found = continue_training(model, curve(tmp_path, 900, task), SETTINGS, silent)
    assert found.better
    assert found.new_error < 0.9 * found.old_error
    assert replace(found.model.spec, provenance={}) == replace(model.spec, provenance={})
    assert {name: tensor.shape for name, tensor in found.model.meta.items()} == {
        name: tensor.shape for name, tensor in before.items()
    }
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.meta.items())
    parent = found.model.spec.provenance["parent"]
    assert parent["checksum"] == bundle_checksum(model)
    assert (parent["error"], parent["error_now"]) == (found.old_error, found.new_error)
    assert found.model.spec.provenance["rows"] == 900
    assert found.model.spec.provenance["time_column"] == "t"
    assert read_bundle(write_bundle(found.model)).spec == found.model.spec
    if task == "regression":
        assert found.old_error == found.old.score  # one error for the table of figures and for the decision
        assert found.new_error == found.new.score


def test_the_judged_rows_are_never_learned_from(tmp_path: Path) -> None:
    """Other labels in the last 15% change the figures, not the tensors."""
    table = curve(tmp_path, 400)
    held = np.arange(table.rows) >= 340
    other = table._replace(target=np.where(held, 7.0, table.target))
    one, two = (continue_training(small_model(), each, SETTINGS, silent) for each in (table, other))
    assert all(torch.equal(tensor, two.model.meta[name]) for name, tensor in one.model.meta.items())
    assert one.new_error != two.new_error


def test_what_cannot_get_better_is_not_called_better(tmp_path: Path) -> None:
    """Without an iteration the new version is the old one, and equal is not better."""
    found = continue_training(small_model(), curve(tmp_path, 300), replace(SETTINGS, budget_minutes=0.0), silent)
    assert found.new_error == found.old_error
    assert not found.better


def test_ctrl_c_and_resume_give_the_uninterrupted_version(tmp_path: Path) -> None:
    """Bit for bit; the interrupted run is judged too."""
    table, model = curve(tmp_path, 300), small_model()
    expected = continue_training(model, table, SETTINGS, silent).model
    content: list[bytes] = []
    calls = iter(range(1000))

    def stopping(progress: TrainProgress) -> None:
        del progress
        if next(calls) == 30:
            raise KeyboardInterrupt

    interrupted = continue_training(model, table, replace(SETTINGS, journal=Journal("k", content.append)), stopping)
    assert interrupted.interrupted
    resumed = replace(SETTINGS, journal=Journal("k", content.append, content[-1]))
    assert_same(continue_training(model, table, resumed, silent).model, expected)


def committee(table: Table) -> Model:
    """Three experts, one of them on boosted trees, briefly trained on a table."""
    spec = candidates(_base_spec(table, "bayes_head", TrainSettings(lag_target=0)), "boosted_trees")
    return fit(spec, with_start(split_table(table, 0), spec, boosting_of(spec)), SETTINGS, 60.0, 50, silent).model


def bent(table: Table) -> Table:
    """The same inputs with the labels of another world."""
    a, b = (np.asarray(table.columns[name]) for name in "ab")
    return table._replace(target=np.asarray(table.target) + 2 * a * b - b)


def test_a_committee_goes_on_with_its_experts_and_its_trees(tmp_path: Path) -> None:
    """Every expert learns further; the trees and what the model is stay bit for bit."""
    table = curve(tmp_path, 900)
    model = committee(table)
    found = continue_training(model, bent(table), SETTINGS, silent)
    assert found.better
    assert replace(found.model.spec, provenance={}) == replace(model.spec, provenance={})
    assert found.model.meta.keys() == model.meta.keys()
    moved = {name for name, tensor in found.model.meta.items() if not torch.equal(tensor, model.meta[name])}
    assert {name.split(".")[0] for name in moved} == {expert.name for expert in model.spec.experts}
    assert any(name.startswith(PREFIX) for name in model.meta)


def test_experts_keep_what_newer_rows_do_not_better(tmp_path: Path) -> None:
    """Shuffled labels, larger and more spread, teach a committee no more than how noisy labels are."""
    table = curve(tmp_path, 900)
    model = committee(table)
    target = np.asarray(table.target).copy()
    learned = int(0.85 * 0.85 * table.rows)
    target[:learned] = 5 + 3 * np.random.default_rng(0).permutation(target[:learned])
    found = continue_training(model, table._replace(target=target), SETTINGS, silent)
    moved = {name for name, tensor in found.model.meta.items() if not torch.equal(tensor, model.meta[name])}
    assert {name.split(".")[1] for name in moved} <= {"log_noise"}


@pytest.mark.parametrize("stop_after", [30, 130, 230])
def test_a_committee_resumes_in_the_expert_where_it_stopped(tmp_path: Path, stop_after: int) -> None:
    """Experts that were finished are not run again, and the version is the uninterrupted one bit for bit."""
    table = curve(tmp_path, 300)
    model = committee(table)
    expected = continue_training(model, table, SETTINGS, silent).model
    content: list[bytes] = []
    calls = iter(range(1, 1000))

    def stopping(progress: TrainProgress) -> None:
        del progress
        if next(calls) == stop_after:
            raise KeyboardInterrupt

    interrupted = continue_training(model, table, replace(SETTINGS, journal=Journal("k", content.append)), stopping)
    assert interrupted.interrupted
    journal = Journal("k", content.append, content[-1])
    assert (journal.stages, journal.iterations) == (stop_after // 100, stop_after)
    assert_same(continue_training(model, table, replace(SETTINGS, journal=journal), silent).model, expected)


def assert_same(one: Model, other: Model) -> None:
    """Equal in every byte of their bundles."""
    assert write_bundle(one) == write_bundle(other)


def test_too_few_rows_are_refused(tmp_path: Path) -> None:
    """They cannot be cut in three."""
    with pytest.raises(DataError, match="too few"):
        continue_training(small_model(), curve(tmp_path, 42), SETTINGS, silent)


def test_joined_tables_keep_rows_in_order_and_streams_by_name(tmp_path: Path) -> None:
    """A stream of both tables is one; other features cannot be joined."""
    one, two = curve(tmp_path, 60), curve(tmp_path, 90)
    renamed = two._replace(stream_names=("shop-2", "new", "shop-0"))
    joined = join_tables([one, renamed])
    assert joined.stream_names == ("shop-0", "shop-1", "shop-2", "new")
    names = [joined.stream_names[code] for code in joined.streams]
    assert names[60:63] == ["shop-2", "new", "shop-0"]
    assert joined.values() == one.values() + two.values()
    assert joined.targets() == one.targets() + two.targets()
    with pytest.raises(DataError, match="cannot be joined"):
        join_tables([one, two._replace(columns={"a": two.columns["a"]})])
