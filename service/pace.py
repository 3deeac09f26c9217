"""How long a tick takes, foreseen from how long others like it took."""

import math
from collections.abc import Mapping
from typing import NamedTuple
from weakref import WeakKeyDictionary

from models import Engine

BRIEF_SECONDS = 0.005
"""A shorter tick is worked on where it is asked for: in a thread its small operations, each of which gives up the
interpreter's lock, would take longer, and others no less time."""
LONG_SECONDS = 0.03
"""A longer tick is a large batch's, beside which others are let in more often."""
WEIGHT = 0.2
"""Of the newest tick in the running mean."""


class Load(NamedTuple):
    """What an engine has to do in a tick."""

    items: int
    rows: int


class Pace:
    """Running means of a tick's CPU time, by engine and by its load in powers of two.

    A tick has a fixed cost that is most of a small one's, so that nothing is concluded from ticks of another size.

    All methods may be called from any thread, one at a time.
    """

    def __init__(self) -> None:
        self._means: WeakKeyDictionary[Engine, dict[tuple[int, int], float]] = WeakKeyDictionary()

    def seconds(self, loads: Mapping[Engine, Load]) -> float:
        """CPU seconds that a tick should take; infinite where none of its kind was seen."""
        return sum(self._means.get(engine, {}).get(_size(load), math.inf) for engine, load in loads.items())

    def took(self, loads: Mapping[Engine, Load], seconds: float) -> None:
        """Learn from a tick; one of several engines does not tell what each took."""
        if len(loads) != 1:
            return
        ((engine, load),) = loads.items()
        means, size = self._means.setdefault(engine, {}), _size(load)
        means[size] = (1 - WEIGHT) * means.get(size, seconds) + WEIGHT * seconds


def _size(load: Load) -> tuple[int, int]:
    return load.items.bit_length(), load.rows.bit_length()
