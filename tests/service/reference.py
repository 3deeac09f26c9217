"""What a stream is, in few lines: the yardstick of the model test.

A stream is a revision, counts, ids, and the rows that its state has learned. There is no store, cache, queue or log:
an engine of its own learns one stream at a time, and what came of it is kept for every revision.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from models import Decision, Engine, Feedback, FloatArray, Prediction

Config = dict[str, Any]


class Rows(NamedTuple):
    """Rows that were learned, with all that learning them again needs; ``None`` in their place is a reset."""

    inputs: Sequence[Any]
    targets: Sequence[Any]
    asked: FloatArray
    decision: Decision


class Waiting(NamedTuple):
    """A row that was predicted under an id, by a version of the model, at a time (epoch seconds)."""

    row: Sequence[float]
    asked: FloatArray
    version: int
    at: float


class Past(NamedTuple):
    """A revision: the rows that its state has learned, the state, and what the state is made for."""

    rows: tuple[Rows | None, ...]
    state: bytes
    made_for: tuple[int, str | None]


@dataclass
class Reference:
    """One stream; ``engine_of`` is asked for the engine of a model version and a config."""

    engine_of: Callable[[int, Config], Engine]
    version: int
    config: Config = field(default_factory=dict)
    revision: int = 0
    rows_seen: int = 0
    ids: set[str] = field(default_factory=set)
    pending: dict[str, Waiting] = field(default_factory=dict)
    past: dict[int, Past] = field(default_factory=dict)
    kinds: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.past[0] = self._again(())

    def predict(self, inputs: Sequence[Any]) -> Prediction:
        """What the stream answers."""
        engine = self.engine_of(self.version, self.config)
        slot = engine.restore(self.past[self.revision].state)
        answer = engine.predict([(slot, engine.encode_inputs(inputs))])[0]
        engine.release(slot)
        return answer

    def learn(self, inputs: Sequence[Any], targets: Sequence[Any], asked: FloatArray | None = None) -> None:
        """Rows that are new, as one batch."""
        engine = self.engine_of(self.version, self.config)
        slot = engine.restore(self.past[self.revision].state)
        given = Feedback(slot, engine.encode_inputs(inputs), engine.encode_targets(targets), asked)
        tick = engine.step([given])
        engine.apply(tick)
        (outcome,) = tick.outcomes
        told = outcome.prediction.asked if asked is None else asked
        self.kinds += [outcome.event] if outcome.event else []
        self.rows_seen += len(inputs)
        rows = Rows(inputs, targets, told, outcome.decision)
        self._next(Past((*self.past[self.revision].rows, rows), engine.snapshot(slot), self._made_for))
        engine.release(slot)

    def label(self, ids: Sequence[str], targets: Sequence[Any]) -> None:
        """Labels of rows that wait; what another version of the model had said of a row does not count."""
        waiting = [self.pending.pop(name) for name in ids]
        inputs = [each.row for each in waiting]
        now = self.predict(inputs).asked
        told = [each.asked if each.version == self.version else said for each, said in zip(waiting, now, strict=True)]
        self.ids |= set(ids)
        self.learn(inputs, targets, np.array(told))

    def reset(self) -> None:
        """Back to the meta-initialization; labels that are known stay known."""
        engine, before = self.engine_of(self.version, self.config), self.past[self.revision]
        slot = engine.restore(before.state)
        engine.apply(engine.reset_tick([slot]))
        self._next(Past((*before.rows, None), engine.snapshot(slot), self._made_for))
        self.kinds.append("reset")
        engine.release(slot)

    def configure(self, config: Config) -> None:
        """Another config, under which the rows are learned again if the state is not made for it."""
        self.config = config
        if self.past[self.revision].made_for != self._made_for:
            self.past[self.revision] = self._again(self.past[self.revision].rows)

    def activate(self, version: int) -> None:
        """Another version of the model learns the rows."""
        self.version = version
        self._next(self._again(self.past[self.revision].rows))
        self.kinds.append("activate")

    def roll_back(self, revision: int) -> None:
        """What an earlier revision had learned is what the stream has learned."""
        then = self.past[revision]
        self._next(then if then.made_for == self._made_for else self._again(then.rows))
        self.kinds.append("rollback")

    def take_over(self, other: "Reference") -> None:
        """The state of another stream as it was exported; the rows behind it stay there."""
        self.version, self.config = other.version, other.config
        self.rows_seen += other.rows_seen
        self._next(other.past[other.revision]._replace(rows=()))

    def copy(self) -> "Reference":
        """The stream as it is now."""
        return replace(self, past=dict(self.past))

    @property
    def _made_for(self) -> tuple[int, str | None]:
        return self.version, self.config.get("detector")

    def _again(self, learned: tuple[Rows | None, ...]) -> Past:
        """Learn rows from scratch, with the alarms that there were."""
        engine = self.engine_of(self.version, self.config)
        slot = engine.create()
        for rows in learned:
            if rows is None:
                engine.apply(engine.reset_tick([slot]))
            else:
                inputs, targets = engine.encode_inputs(rows.inputs), engine.encode_targets(rows.targets)
                engine.apply(engine.step([Feedback(slot, inputs, targets, rows.asked, rows.decision)]))
        state = engine.snapshot(slot)
        engine.release(slot)
        return Past(learned, state, self._made_for)

    def _next(self, past: Past) -> None:
        self.revision += 1
        self.past[self.revision] = past
