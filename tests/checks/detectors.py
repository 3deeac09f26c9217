"""One examination for all drift detectors; it runs over every entry of the table DETECTORS."""

from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest

from models.detectors import Detector, DetectorState, Signals, Verdict
from models.detectors.base import BoolArray
from models.types import FloatArray

BATCHES = 60
MEMBERS = 4
"""Members, the challenger included; detectors that weigh hypotheses have as many."""


def of_members(
    error: FloatArray, nll: FloatArray, mask: BoolArray, live: FloatArray, challenger: FloatArray
) -> Signals:
    """Signals of a committee whose live members all predict alike."""
    members = np.column_stack([live] * (MEMBERS - 1) + [challenger])
    return Signals(error, nll, mask, live, challenger, members=members)


def quiet(streams: int, rows: int = 4, level: float = 0.5) -> Signals:
    """A batch as well predicted as every other: errors constant, the challenger a nat behind."""
    signal = np.full((streams, rows), level)
    return of_members(
        signal, signal, np.ones((streams, rows), dtype=bool), np.full(streams, -2.0), np.full(streams, -3.0)
    )


def shocked(streams: int, rows: int = 4) -> Signals:
    """A batch that what is served does not expect at all, and the challenger much less badly."""
    signal = np.full((streams, rows), 200.0)
    return of_members(
        signal, signal, np.ones((streams, rows), dtype=bool), np.full(streams, -800.0), np.full(streams, -20.0)
    )


def random_signals(rng: np.random.Generator, streams: int, rows: int = 5) -> Signals:
    """Noisy signals whose level moves now and then, with ragged masks, some of them empty."""
    level = 10.0 * (rng.random((streams, 1)) < 0.1)
    nll = level + rng.normal(size=(streams, rows))
    mask = np.arange(rows) < rng.integers(0, rows + 1, size=(streams, 1))
    signals = of_members(nll**2, nll, mask, rng.normal(-3, 3, streams), rng.normal(-3, 3, streams))
    fresh, gain = rng.normal(-3, 3, streams), rng.gamma(1.0, 1.0, streams)
    return signals._replace(fresh=fresh, gain=gain, members=rng.normal(-3, 3, (streams, MEMBERS)))


def one(signals: Signals, stream: int) -> Signals:
    """The signals of one stream."""
    own = slice(stream, stream + 1)
    parts = {name: values[own] for name, values in signals._asdict().items() if values is not None}
    return signals._replace(**parts)


def alarms(detector: Detector, state: DetectorState, batches: list[Signals]) -> tuple[list[Verdict], DetectorState]:
    """Run batches, return all verdicts and the last state."""
    verdicts = []
    for signals in batches:
        state, verdict = detector.update(state, signals)
        verdicts.append(verdict)
    return verdicts, state


def check_is_a_frozen_value(detector: Detector) -> None:
    """Settings do not change after the detector is made."""
    names = [field.name for field in fields(detector)]  # type: ignore[arg-type]  # every entry is a dataclass
    with pytest.raises((FrozenInstanceError, TypeError)):  # slots and no fields: TypeError
        setattr(detector, names[0] if names else "anything", 1)


def check_state_leads_with_the_stream_axis(detector: Detector) -> None:
    """Every array of the state has a row for each stream and holds finite float64 or int64 numbers."""
    _, state = alarms(detector, detector.init(3), [random_signals(np.random.default_rng(0), 3) for _ in range(5)])
    for array in (*detector.init(3).values(), *state.values()):
        assert array.shape[0] == 3
        assert array.dtype in (np.float64, np.int64)
        assert np.isfinite(array).all()


def check_update_is_pure(detector: Detector) -> None:
    """An update leaves the state and the signals it was given as they were, and repeats exactly."""
    rng = np.random.default_rng(1)
    _, state = alarms(detector, detector.init(4), [random_signals(rng, 4) for _ in range(9)])
    kept = {name: array.copy() for name, array in state.items()}
    signals = random_signals(rng, 4)
    copies = [array.copy() for array in signals if array is not None]
    first, second = detector.update(state, signals), detector.update(state, signals)
    assert all(np.array_equal(kept[name], state[name]) for name in kept)
    kept_signals = [array for array in signals if array is not None]
    assert all(np.array_equal(before, after) for before, after in zip(copies, kept_signals, strict=True))
    assert all(np.array_equal(first[0][name], second[0][name]) for name in kept)
    for name in ("drift", "warning", "statistic", "threshold", "rows_since_change", "idle"):
        assert np.array_equal(getattr(first[1], name), getattr(second[1], name))


def check_batched_equals_single(detector: Detector) -> None:
    """S streams at once do, bit for bit, what each of them does alone."""
    rng = np.random.default_rng(2)
    batches = [random_signals(rng, 5) for _ in range(BATCHES)]
    together, state = alarms(detector, detector.init(5), batches)
    for stream in range(5):
        alone, own = alarms(detector, detector.init(1), [one(signals, stream) for signals in batches])
        assert all(np.array_equal(own[name][0], state[name][stream]) for name in state)
        for mine, ours in zip(alone, together, strict=True):
            assert mine.threshold == ours.threshold
            for name in ("drift", "warning", "statistic", "rows_since_change", "idle"):
                assert getattr(mine, name)[0] == getattr(ours, name)[stream]


def check_streams_without_rows_keep_their_state(detector: Detector) -> None:
    """Where the mask is empty nothing moves and nothing is alarmed, whatever the padding holds."""
    rng = np.random.default_rng(3)
    _, state = alarms(detector, detector.init(3), [random_signals(rng, 3) for _ in range(7)])
    signals = shocked(3)
    signals.mask[1] = False
    signals.nll[1] = signals.error[1] = np.nan
    after, verdict = detector.update(state, signals)
    assert all(np.array_equal(state[name][1], after[name][1]) for name in state)
    assert not verdict.drift[1]
    assert not verdict.warning[1]


def check_padding_has_no_effect(detector: Detector) -> None:
    """Rows that the mask leaves out may hold anything."""
    rng = np.random.default_rng(4)
    batches = [random_signals(rng, 3) for _ in range(BATCHES)]
    spoiled = [s._replace(nll=np.where(s.mask, s.nll, 1e9), error=np.where(s.mask, s.error, np.nan)) for s in batches]
    clean, dirty = alarms(detector, detector.init(3), batches), alarms(detector, detector.init(3), spoiled)
    assert all(np.array_equal(clean[1][name], dirty[1][name]) for name in clean[1])


def check_survives_what_is_not_finite(detector: Detector) -> None:
    """NaN and infinities among the signals leave a finite state and raise no alarm."""
    bad = quiet(2)
    bad.nll[0], bad.error[0], bad.live[0] = np.nan, np.inf, np.nan
    bad.live[1], bad.challenger[1] = -np.inf, -np.inf
    bad = bad._replace(members=np.column_stack([bad.live] * (MEMBERS - 1) + [bad.challenger]))
    verdicts, state = alarms(detector, detector.init(2), [quiet(2)] * 20 + [bad] * 3 + [quiet(2)] * 5)
    assert all(np.isfinite(array).all() for array in state.values())
    assert not any(verdict.drift.any() for verdict in verdicts)


def check_no_alarm_on_a_constant_signal(detector: Detector) -> None:
    """A stream that goes on as before raises neither alarm nor warning."""
    verdicts, _ = alarms(detector, detector.init(2), [quiet(2)] * 500)
    assert not any(verdict.drift.any() or verdict.warning.any() for verdict in verdicts)


def check_alarm_on_a_big_jump_if_it_detects(detector: Detector) -> None:
    """What claims to detect raises its alarm with the first shocking batch; what does not never does."""
    verdicts, _ = alarms(detector, detector.init(2), [quiet(2)] * 50 + [shocked(2)] * 2)
    assert not any(verdict.drift.any() for verdict in verdicts[:50])
    assert verdicts[50].drift.all() == detector.detects
    assert verdicts[50].warning.all() == detector.detects
    assert (verdicts[50].statistic > verdicts[50].threshold).all() == detector.detects


def check_alarm_starts_anew(detector: Detector) -> None:
    """After an alarm the detector is where it began: the same rows raise the same alarms again."""
    story = [quiet(1)] * 30 + [shocked(1)]
    first, state = alarms(detector, detector.init(1), story)
    second, _ = alarms(detector, state, story)
    assert [bool(v.drift[0]) for v in first] == [detector.detects and i == 30 for i in range(31)]
    if detector.compares_challenger:
        assert [bool(v.drift[0]) for v in second] == [bool(v.drift[0]) for v in first]
        assert first[-1].idle.all()


def check_estimate_is_within_what_was_seen(detector: Detector) -> None:
    """The estimated rows since the change are at least one at an alarm and never more than were seen; or -1, none."""
    rng = np.random.default_rng(5)
    state, seen = detector.init(4), np.zeros(4, dtype=np.int64)
    for _ in range(BATCHES):
        signals = random_signals(rng, 4)
        seen += signals.mask.sum(axis=1)
        state, verdict = detector.update(state, signals)
        assert (verdict.rows_since_change <= seen).all()
        assert (verdict.rows_since_change >= -1).all()
        assert verdict.rows_since_change.dtype == np.int64
        assert (verdict.rows_since_change[verdict.drift] != 0).all()


CHECKS: tuple[Callable[[Detector], None], ...] = (
    check_is_a_frozen_value,
    check_state_leads_with_the_stream_axis,
    check_update_is_pure,
    check_batched_equals_single,
    check_streams_without_rows_keep_their_state,
    check_padding_has_no_effect,
    check_survives_what_is_not_finite,
    check_no_alarm_on_a_constant_signal,
    check_alarm_on_a_big_jump_if_it_detects,
    check_alarm_starts_anew,
    check_estimate_is_within_what_was_seen,
)
