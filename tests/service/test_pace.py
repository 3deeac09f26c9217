"""How long a tick should take."""

import math

from models import Engine
from service.pace import Load, Pace
from tests.models.examples import small_model


def test_nothing_is_foreseen_of_what_was_never_seen() -> None:
    """An engine, or a load of another power of two, says nothing of others."""
    pace, seen, other = Pace(), Engine(small_model("regression")), Engine(small_model("regression"))
    pace.took({seen: Load(3, 3)}, 0.002)
    assert pace.seconds({seen: Load(2, 2)}) == 0.002
    assert pace.seconds({other: Load(3, 3)}) == math.inf
    assert pace.seconds({seen: Load(3, 64)}) == math.inf
    assert pace.seconds({seen: Load(3, 3), other: Load(1, 1)}) == math.inf


def test_a_tick_of_several_engines_takes_what_each_takes() -> None:
    """What each takes is learned from ticks of its own alone."""
    pace, one, two = Pace(), Engine(small_model("regression")), Engine(small_model("regression"))
    pace.took({one: Load(1, 1)}, 0.001)
    pace.took({two: Load(1, 1)}, 0.003)
    both = {one: Load(1, 1), two: Load(1, 1)}
    pace.took(both, 1.0)
    assert math.isclose(pace.seconds(both), 0.004)


def test_what_is_foreseen_follows_what_is_seen() -> None:
    """A load that takes longer than it did is foreseen to, after some ticks."""
    pace, engine = Pace(), Engine(small_model("regression"))
    for seconds in (0.001, *[0.01] * 20):
        pace.took({engine: Load(8, 8)}, seconds)
    assert math.isclose(pace.seconds({engine: Load(8, 8)}), 0.01, rel_tol=0.02)


def test_an_engine_that_is_gone_is_forgotten() -> None:
    """Nothing is kept of it, nor keeps it."""
    pace = Pace()
    pace.took({Engine(small_model("regression")): Load(1, 1)}, 0.001)
    assert pace.seconds({Engine(small_model("regression")): Load(1, 1)}) == math.inf
