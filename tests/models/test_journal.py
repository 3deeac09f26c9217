"""An interrupted training goes on as if it had never stopped, bit for bit."""

import signal
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from models import Model, TrainingError, TrainProgress, TrainSettings, search, selection, train_table, train_tasks
from models import trainer as trainer_module
from models.journal import Journal, fingerprint
from models.metatrain import Checkpoint
from tests.models.examples import small_table

SMALL = (
    (trainer_module, "ITERATIONS", 60),
    (trainer_module, "SINUSOID_ITERATIONS", 40),
    (selection, "PROBE_ITERATIONS", 10),
    (search, "FIRST_ITERATIONS", 2),
)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short training run on one thread."""
    torch.set_num_threads(1)
    for module, name, value in SMALL:
        monkeypatch.setattr(module, name, value)


class Kept:
    """Where a journal's bytes go, and a real Ctrl-C after so many calls of progress."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.content: bytes | None = None
        self.calls = 0
        self.stop_after = stop_after

    def save(self, content: bytes) -> None:
        """Take the bytes."""
        self.content = content

    def follow(self, progress: TrainProgress) -> None:
        """Count, and send this process SIGINT once."""
        del progress
        self.calls += 1
        if self.calls == self.stop_after:
            signal.raise_signal(signal.SIGINT)


def assert_equal(one: Model, other: Model) -> None:
    """The same model to the last bit."""
    assert one.spec == other.spec
    assert one.meta.keys() == other.meta.keys()
    assert all(torch.equal(tensor, other.meta[name]) for name, tensor in one.meta.items())


def test_a_resumed_training_gives_the_uninterrupted_model(tmp_path: Path) -> None:
    """Whether Ctrl-C comes in a probe, in an expert or in the last run; the interrupted run leaves a model too."""
    table = small_table(tmp_path, 300, 2)
    settings = TrainSettings(budget_minutes=60.0)
    whole = Kept()
    expected, _ = train_table(table, settings, whole.follow)
    for stop_after in (1, 24, 170, 280):
        first, second = Kept(stop_after), Kept()
        _, report = train_table(table, replace(settings, journal=Journal("key", first.save)), first.follow)
        assert report.interrupted
        assert first.content is not None
        journal = Journal("key", second.save, first.content)
        assert 0 < journal.iterations <= stop_after
        found, report = train_table(table, replace(settings, journal=journal), second.follow)
        assert not report.interrupted
        assert_equal(found, expected)
        assert first.calls + second.calls == whole.calls  # no iteration was done twice


def test_a_training_may_be_interrupted_again_and_again() -> None:
    """Ten iterations a run, on a task family."""
    expected, _ = train_tasks("sinusoid", TrainSettings(budget_minutes=60.0), Kept().follow)
    content: bytes | None = None
    for _ in range(20):
        kept = Kept(10)
        settings = TrainSettings(budget_minutes=60.0, journal=Journal("key", kept.save, content))
        found, report = train_tasks("sinusoid", settings, kept.follow)
        content = kept.content
        if not report.interrupted:
            break
    assert_equal(found, expected)


def test_the_running_stage_is_kept_now_and_then() -> None:
    """Every so many seconds, not after every iteration."""
    times = iter(range(100))
    saved: list[bytes] = []
    journal = Journal("key", saved.append, keep_seconds=10, clock=lambda: float(next(times)))
    zero = torch.zeros(2)
    checkpoint = Checkpoint(zero, zero, zero, zero, torch.Generator().get_state(), iteration=3)
    for _ in range(24):
        journal.keep(checkpoint)
    assert len(saved) == 2
    assert Journal("key", saved.append, saved[-1]).next()[1] is not None


def test_what_does_not_belong_is_refused() -> None:
    """Another training's checkpoint, and a damaged one, each with what to do."""
    kept = Kept(3)
    train_tasks("sinusoid", TrainSettings(journal=Journal("key", kept.save)), kept.follow)
    assert kept.content is not None
    with pytest.raises(TrainingError, match=r"other rows or other options.*without --resume"):
        Journal("other", kept.save, kept.content)
    flipped = bytearray(kept.content)
    flipped[-5] ^= 1
    for damaged in (bytes(flipped), kept.content[:-9], b"", b"no checkpoint at all"):
        with pytest.raises(TrainingError, match="damaged"):
            Journal("key", kept.save, damaged)


def test_a_fingerprint_is_of_rows_and_options(tmp_path: Path) -> None:
    """One cell or one option makes another."""
    table = small_table(tmp_path, 50, 2)
    changed = table._replace(columns={**table.columns, "a": table.columns["a"][::-1]})
    same, other = fingerprint({"seed": 0}, table), fingerprint({"seed": 1}, table)
    assert same == fingerprint({"seed": 0}, small_table(tmp_path, 50, 2))
    assert len({same, other, fingerprint({"seed": 0}, changed), fingerprint({"seed": 0})}) == 4


def test_search_tries_all_and_keeps_the_best(tmp_path: Path) -> None:
    """Each round halves; the chosen widths are the bundle's, what was tried is in its provenance; seeded."""
    table = small_table(tmp_path, 300, 2)
    settings = TrainSettings(search=True, lag_target=0, budget_minutes=60.0)
    model, report = train_table(table, settings, Kept().follow)
    tried = model.spec.provenance["search"]
    assert [each["hidden"] for each in tried[:8]] == [list(widths) for widths in search.CANDIDATES]
    assert [each["iterations"] for each in tried] == [2] * 8 + [4] * 4 + [8] * 2
    rounds = [tried[:8], tried[8:12], tried[12:]]
    for before, after in pairwise(rounds):
        kept = sorted(before, key=lambda each: float(each["score"]))[: len(after)]
        assert [each["hidden"] for each in after] == [each["hidden"] for each in kept]
    best = min(rounds[-1], key=lambda each: float(each["score"]))
    widths = {expert.name: list(expert.hyper_parameters["hidden"]) for expert in model.spec.experts}
    without: dict[str, list[int]] = {"kernel": [], "linear": [], "trees": []}  # heads without a network stay without
    assert widths == {"bayes_head": best["hidden"], **without}
    assert f"network: hidden widths {'-'.join(map(str, best['hidden']))}" in report.choices
    assert_equal(train_table(table, settings, Kept().follow)[0], model)


def test_search_can_be_interrupted_and_resumed(tmp_path: Path) -> None:
    """Like any other stage."""
    table = small_table(tmp_path, 300, 2)
    settings = TrainSettings(search=True, lag_target=0, budget_minutes=60.0)
    expected, _ = train_table(table, settings, Kept().follow)
    first = Kept(29)
    _, report = train_table(table, replace(settings, journal=Journal("k", first.save)), first.follow)
    assert report.interrupted
    second = replace(settings, journal=Journal("k", first.save, first.content))
    assert_equal(train_table(table, second, first.follow)[0], expected)
