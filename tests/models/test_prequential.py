"""A prequential run predicts every row before its label is learned, and says so in honest figures."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import Engine, Feedback, Table, rows_mask
from models.features import lag_columns
from models.lockstep import events
from models.prequential import prequential
from models.types import Lags, TaskKind
from tests.models.examples import small_engine, small_table

LAGS = Lags((1, 2), (0.1,))


def _by_hand(engine: Engine, table: Table, batch: int, delay: int) -> tuple[list[float], list[float], list[float]]:
    """The definition, row by row: predictions, batch scores of the frozen start, and first lag values."""
    inputs, targets = engine.encode_inputs(table.values()), engine.encode_targets(table.targets())
    slots = {code: engine.create() for code in range(len(table.stream_names))}
    batches: list[list[int]] = []
    for code in slots:
        rows = np.flatnonzero(table.streams == code).tolist()
        batches += [rows[start : start + batch] for start in range(0, len(rows), batch)]
    learned_after = {rows[-1] + delay: rows for rows in batches}
    answers = [engine.predict_initial(inputs[:1])] * table.rows
    initial = [0.0] * table.rows
    for now in range(table.rows + delay):
        if now < table.rows:
            answers[now] = engine.predict([(slots[int(table.streams[now])], inputs[now : now + 1])])[0]
        rows = learned_after.get(now, [])
        if rows:
            lags = np.concatenate([answers[row].asked for row in rows])
            tick = engine.step([Feedback(slots[int(table.streams[rows[0]])], inputs[rows], targets[rows], lags)])
            engine.apply(tick)
            for row in rows:
                initial[row] = tick.outcomes[0].initial_score
    lags_wide = lag_columns(engine.model.spec)
    first_lags = [answer.asked[0, 0] if lags_wide else 0.0 for answer in answers]
    return [answer.predictions[0] for answer in answers], initial, first_lags


@pytest.mark.parametrize("lags", [Lags(), LAGS], ids=["plain", "lagged"])
@pytest.mark.parametrize(("batch", "delay"), [(1, 0), (4, 0), (1, 7), (3, 11)])
def test_run_is_the_definition_row_by_row(tmp_path: Path, batch: int, delay: int, lags: Lags) -> None:
    """Several streams in one call give what a loop over the rows of the file gives."""
    table = small_table(tmp_path, 60)
    predictions, initial, first_lags = _by_hand(small_engine(lags=lags), table, batch, delay)
    report = prequential(small_engine(lags=lags), table, batch=batch, delay=delay)
    truth = np.array(table.targets())
    np.testing.assert_allclose(report.adapted.score, np.abs(np.array(predictions) - truth), rtol=1e-4, atol=1e-5)
    batch_means = [report.frozen.score[rows].mean() for rows in _same(initial)]
    np.testing.assert_allclose(batch_means, [initial[rows[0]] for rows in _same(initial)], rtol=1e-4, atol=1e-5)
    if lags.offsets:
        np.testing.assert_allclose(report.lags[:, 0], first_lags, rtol=1e-5)


def _same(values: list[float]) -> list[list[int]]:
    """Rows by value: the rows of a batch share its score."""
    found: dict[float, list[int]] = {}
    for row, value in enumerate(values):
        found.setdefault(value, []).append(row)
    return list(found.values())


def test_lanes_do_not_change_the_result(tmp_path: Path) -> None:
    """One stream after the other, or all at once."""
    table = small_table(tmp_path, 60)
    one, many = (prequential(small_engine(lags=LAGS), table, lanes=lanes) for lanes in (1, 64))
    np.testing.assert_allclose(one.adapted.score, many.adapted.score, rtol=1e-5)
    np.testing.assert_allclose(one.adapted.loss, many.adapted.loss, rtol=1e-4)


@given(
    rows=st.lists(st.integers(0, 60), min_size=1, max_size=25, unique=True).map(sorted),
    batch=st.integers(1, 5),
    delay=st.integers(0, 12),
)
def test_labels_arrive_when_they_are_due(rows: list[int], batch: int, delay: int) -> None:
    """Each row is predicted once and learned once; it is learned by its batch's last row + delay, and not before."""
    predicted: list[int] = []
    learned: list[int] = []
    for event in events(np.array(rows), batch, delay):
        if event.predict:
            predicted += event.rows.tolist()
        if event.learn:
            learned += event.rows.tolist()
            assert set(event.rows.tolist()) <= set(predicted)
            if delay:
                assert all(row <= event.rows[-1] + delay for row in predicted)
        else:
            whole = len(learned)
            due = rows[whole : whole + batch][-1] + delay
            assert event.rows[-1] <= due
    assert predicted == learned == rows


def test_adapting_beats_the_frozen_start(tmp_path: Path) -> None:
    """On streams that follow laws of their own, even from an untrained start."""
    for task, better in (("regression", -1), ("classification", 1)):
        table = small_table(tmp_path, 400, task=task)
        report = prequential(small_engine(task), table, batch=4)
        frozen, adapted = report.scores()
        assert better * adapted.score > better * frozen.score
        assert adapted.loss is not None
        assert frozen.loss is not None
        assert adapted.loss < frozen.loss


def test_only_scored_rows_count_but_all_are_learned(tmp_path: Path) -> None:
    """The part changes the figures' rows, not the run."""
    table = small_table(tmp_path, 100)
    scored = rows_mask(table, "0.5:")
    part, everything = (prequential(small_engine(), table, batch=2, scored=mask) for mask in (scored, None))
    np.testing.assert_array_equal(part.adapted.score, everything.adapted.score)
    _, figures = part.scores()
    assert figures.rows == 50
    assert figures.score == pytest.approx(float(everything.adapted.score[50:].mean()))


def test_losses_of_late_labels_are_those_of_the_stored_prediction(tmp_path: Path) -> None:
    """With a delay that outlasts the file nothing is learned in time: the loss is the frozen start's."""
    for task in ("regression", "classification"):
        table = small_table(tmp_path, 40, task=task)
        report = prequential(small_engine(task), table, delay=1000)
        np.testing.assert_allclose(report.adapted.score, report.frozen.score, rtol=1e-4, atol=1e-6)
        tolerance = 0.05 if task == "regression" else 1e-4  # a normal density stands for the mixture
        np.testing.assert_allclose(report.adapted.loss, report.frozen.loss, atol=tolerance)


def test_wrong_batches_and_delays_are_refused(tmp_path: Path) -> None:
    """A batch has a row, and labels do not come before their rows."""
    table = small_table(tmp_path, 10)
    for batch, delay in ((0, 0), (1, -1)):
        with pytest.raises(ValueError, match="at least"):
            prequential(small_engine(), table, batch=batch, delay=delay)


@pytest.mark.parametrize("delay", [0, 9])
def test_stated_certainty_is_what_the_stream_would_answer(tmp_path: Path, delay: int) -> None:
    """Intervals of 90% and probabilities, from the state before the row; the frozen start's are a fresh stream's."""
    for task in ("regression", "classification"):
        table = small_table(tmp_path, 30, streams=1, task=task)
        engine = small_engine(task)
        inputs, targets = engine.encode_inputs(table.values()), engine.encode_targets(table.targets())
        report = prequential(small_engine(task), table, delay=delay)
        slot = engine.create()
        asked: list[np.ndarray] = []
        for row in range(30):
            if row > delay:
                due = [row - delay - 1]
                late = asked[due[0]] if delay else None
                engine.apply(engine.step([Feedback(slot, inputs[due], targets[due], late)]))
            answers = engine.predict([(slot, inputs[[row]])], 0.9)[0], engine.predict_initial(inputs[[row]], 0.9)
            asked.append(answers[0].asked)
            for run, answer in zip((report.adapted, report.frozen), answers, strict=True):
                if answer.probabilities is not None:
                    assert run.confidence is not None
                    assert run.confidence[row] == pytest.approx(max(answer.probabilities[0]), rel=1e-3)
                elif answer.intervals is not None:
                    assert run.inside is not None
                    assert run.width is not None
                    low, high = answer.intervals[0]
                    assert run.width[row] == pytest.approx(high - low, rel=1e-3)
                    assert run.inside[row] == (low <= targets[row, 0] <= high)


@pytest.mark.parametrize("delay", [0, 5])
@pytest.mark.parametrize("task", ["regression", "classification"])
def test_members_are_judged_alone(tmp_path: Path, task: TaskKind, delay: int) -> None:
    """Each live member has a run; what is served lies between them; nothing else changes."""
    table = small_table(tmp_path, 60, 2, task)
    plain = prequential(small_engine(task), table, delay=delay)
    told = prequential(small_engine(task), table, delay=delay, members=True)
    assert [each.name for each in told.members] == ["head 0", "head 1"]
    np.testing.assert_array_equal(told.adapted.score, plain.adapted.score)
    low = np.minimum(*(each.score for each in told.members))
    high = np.maximum(*(each.score for each in told.members))
    assert np.mean((told.adapted.score >= low - 0.2) & (told.adapted.score <= high + 0.2)) > 0.9
