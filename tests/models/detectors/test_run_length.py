"""The run-length recursion against brute force over all segmentations, and the settings it refuses."""

import itertools
import math
from typing import Any

import numpy as np
import pytest

from models.detectors import RunLength, Signals
from models.errors import InputError

SIZES = (2, 1, 3, 1, 2)
HAZARD = 0.2


def test_run_length_belief_equals_brute_force_with_batches_of_any_length() -> None:
    """Random likelihoods of each batch under each start: the belief is the exact posterior, to twelve places."""
    rng = np.random.default_rng(0)
    table = rng.normal(-3.0, 2.0, (len(SIZES), len(SIZES)))  # [batch, first batch of its regime]
    detector = RunLength(hypotheses=len(SIZES) + 1, hazard=HAZARD)
    state = detector.init(1)
    places: dict[int, int] = {}
    for batch, size in enumerate(SIZES):
        members = np.full((1, detector.hypotheses), 50.0)  # what nobody stands for says nothing, however loud
        for start, place in places.items():
            members[0, place] = table[batch, start]
        members[0, -1] = table[batch, batch]
        none, mask = np.zeros((1, size)), np.ones((1, size), dtype=bool)
        state, verdict = detector.update(state, Signals(none, none, mask, np.zeros(1), np.zeros(1), members=members))
        assert verdict.place is not None
        places[batch] = int(verdict.place[0])
    exact = np.full(len(SIZES), -np.inf)
    for cuts in itertools.product((False, True), repeat=len(SIZES) - 1):
        start, log_p = 0, table[0, 0]
        for batch, cut in enumerate(cuts, start=1):
            stay = SIZES[batch - 1] * math.log1p(-HAZARD)
            start = batch if cut else start
            log_p += (math.log(-math.expm1(stay)) if cut else stay) + table[batch, start]
        exact[start] = np.logaddexp(exact[start], log_p)
    posterior = np.exp(exact - np.logaddexp.reduce(exact))
    stay = SIZES[-1] * math.log1p(-HAZARD)
    found = np.exp(state["belief"][0])
    assert found[-1] == pytest.approx(-math.expm1(stay), abs=1e-12)
    for start, place in places.items():
        assert found[place] == pytest.approx(posterior[start] * math.exp(stay), abs=1e-12)


def test_run_length_keeps_the_most_probable_starts() -> None:
    """With no place left, the least probable start gives way to the newest; a newest that is least takes none."""
    detector = RunLength(hypotheses=3)
    state = detector.init(1)
    none, mask = np.zeros((1, 1)), np.ones((1, 1), dtype=bool)

    def learn(*members: float) -> int:
        nonlocal state
        signals = Signals(none, none, mask, np.zeros(1), np.zeros(1), members=np.array([members]))
        state, verdict = detector.update(state, signals)
        assert verdict.place is not None
        return int(verdict.place[0])

    assert [learn(0.0, 0.0, 0.0), learn(0.0, 0.0, 0.0)] == [0, 1]
    assert learn(0.0, 0.0, -9.0) == -1
    assert learn(0.0, -9.0, 0.0) == 1
    assert state["age"].tolist() == [[4, 1]]


@pytest.mark.parametrize(
    ("name", "value"),
    [("hypotheses", 1), ("hazard", 0.0), ("hazard", 1.0), ("hazard", math.nan), ("threshold", 0.0), ("threshold", 1.0)],
)
def test_run_length_refuses_settings_without_meaning(name: str, value: float) -> None:
    """By the setting's name."""
    settings: dict[str, Any] = {name: value}
    with pytest.raises(InputError) as caught:
        RunLength(**settings)
    assert caught.value.loc == ("config", name)
