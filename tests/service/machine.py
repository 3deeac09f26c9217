"""What may happen to streams, as the rules of a state machine: requests, faults, and the passing of time."""

import asyncio
from collections.abc import Coroutine, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from models import Engine, Prediction, StreamConfig, write_bundle
from service.config import Settings
from service.errors import InvalidError, NotFoundError, UnavailableError
from service.idempotency import asked_once
from service.store import Store
from service.streams import Streams
from service.types import Predicted
from tests.service.reference import Config, Reference, Waiting
from tests.service.streams_case import PROBE, Clock, batches, models

T = TypeVar("T")
DAY = 86_400.0
ROWS_MAX = 900
"""Fewer than are retained, so that nothing is forgotten."""
FIRST = models()["reg"]
VERSIONS = (FIRST, FIRST._replace(meta={name: value + 0.25 for name, value in FIRST.meta.items()}))
names = st.sampled_from(["s0", "s1", "s2"])
seeds = st.integers(0, 1_000)
shares = st.integers(0, 99)
"""Which of several, whatever their number is."""


@cache
def engine(version: int, detector: str | None, alarms: float | None) -> Engine:
    """The reference's engine of a model version and a config."""
    return Engine(VERSIONS[version - 1], StreamConfig(detector=detector, alarms_per_1000=alarms))


def engine_of(version: int, config: Config) -> Engine:
    """The same, asked as the reference does."""
    return engine(version, config.get("detector"), config.get("alarms_per_1000"))


def one_of(several: Sequence[T], share: int) -> T:
    """The one that lies at a share, in percent, of several."""
    return several[len(several) * share // 100]


def assert_same(answer: Predicted, expected: Prediction) -> None:
    """Predictions within what float32 allows."""
    for found, wanted in ((answer.predictions, expected.predictions), (answer.std, expected.std)):
        assert np.array(found) == pytest.approx(np.array(wanted), rel=1e-5, abs=1e-5)


class Machine(RuleBasedStateMachine):
    """The service over a store, beside one reference a stream."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = Clock()
        self.known: dict[str, Reference] = {}
        self.active = 1
        self.count = 0
        self.files: list[tuple[bytes, Reference]] = []
        self.answers: dict[tuple[str, str], tuple[float, Any, bytes]] = {}

    # --- the service ---

    def open_store(self) -> Store:
        """The store, as the last process left it."""
        raise NotImplementedError

    def fail(self, after: int) -> None:
        """Let the next commit fail, as far along as ``after`` says, if it is as long."""
        raise NotImplementedError

    def mend(self) -> None:
        """Let no commit fail any more."""
        raise NotImplementedError

    def run(self, what: Coroutine[Any, Any, T]) -> T:
        """What comes of a request."""
        return self.loop.run_until_complete(asyncio.wait_for(what, 60))

    def begin(self) -> None:
        """A new process, which first brings every stream to the active version."""
        self.store = self.open_store()
        limits = Settings(data_dir=Path("unused"), hot_streams_max=2, snapshot_rows=5)
        self.streams = Streams(limits, self.store, {"reg": VERSIONS[0]}, self.clock)
        self.run(self.streams.start())
        self.run(self.streams._activation.done())
        self.brought_along()

    def brought_along(self) -> None:
        """What an activation means for the references."""
        for reference in self.known.values():
            if reference.version != self.active:
                reference.activate(self.active)

    @initialize()
    def start(self) -> None:
        """Both versions of the model are there, the first is active."""
        self.begin()
        assert self.run(self.streams.catalogue.put("reg", write_bundle(VERSIONS[1]))) == 2
        self.run(self.streams.put("s0", "reg"))
        self.known["s0"] = Reference(engine_of, self.active)

    def teardown(self) -> None:
        """Everything stands where the references stand, now and when all is loaded again."""
        try:
            for name in self.known:
                self.check(name)
            self.restart()
            for name in self.known:
                self.check(name)
        finally:
            self.run(self.streams.close())
            self.loop.close()

    def check(self, name: str) -> None:
        """A stream stands where its reference stands."""
        reference, info = self.known[name], self.run(self.streams.get(name))
        found = (info.stream_version, info.rows_seen, info.model_version, info.config)
        assert found == (reference.revision, reference.rows_seen, reference.version, reference.config)
        answer, expected = self.run(self.streams.predict(name, PROBE)), reference.predict(PROBE)
        assert answer.stream_version == reference.revision
        assert_same(answer, expected)
        events = self.run(self.streams.events(name, None, 1_000))[0]
        assert [event.kind for event in events if event.detector != "inputs"] == reference.kinds

    def fresh(self, rows: int) -> list[str]:
        """Ids that were never used."""
        self.count += rows
        return [f"r{self.count - row}" for row in range(rows)]

    # --- what is asked ---

    @rule(name=names)
    def put(self, name: str) -> None:
        """A stream is made once."""
        assert self.run(self.streams.put(name, "reg"))[1] == (name not in self.known)
        self.known.setdefault(name, Reference(engine_of, self.active))
        self.check(name)

    @precondition(lambda self: self.known)
    @rule(rows=st.integers(1, 4), seed=seeds, jump=st.booleans(), repeats=st.integers(0, 2))
    def feedback(self, rows: int, seed: int, repeats: int, *, jump: bool) -> None:
        """All streams at once, each with rows of its own, some of which it has learned before."""
        inputs, targets = batches(1, rows, seed, jump=0 if jump else None)[0]
        ids = {name: self.fresh(rows) for name in self.known}
        olds = {name: sorted(reference.ids)[:repeats] for name, reference in self.known.items()}

        async def teach_all() -> list[Any]:
            given = [
                (name, [*PROBE[: len(old)], *inputs], [*[9.0] * len(old), *targets], [*old, *ids[name]])
                for name, old in olds.items()
            ]
            return await asyncio.gather(*(self.streams.feedback(*each) for each in given))

        for learned in self.run(teach_all()):
            reference = self.known[learned.stream]
            reference.learn(inputs, targets)
            reference.ids |= set(ids[learned.stream])
            assert (learned.accepted, learned.duplicates) == (rows, len(olds[learned.stream]))
            assert learned.stream_version == reference.revision
            self.check(learned.stream)

    @precondition(lambda self: self.known)
    @rule(share=shares, rows=st.integers(1, 3), seed=seeds)
    def predict_for_late_labels(self, share: int, rows: int, seed: int) -> None:
        """What is answered is kept under its ids, and the revision stays."""
        name = one_of(sorted(self.known), share)
        reference, inputs, ids = self.known[name], batches(1, rows, seed)[0][0], self.fresh(rows)
        answer, expected = self.run(self.streams.predict(name, inputs, None, ids)), reference.predict(inputs)
        assert_same(answer, expected)
        again = self.run(self.streams.predict(name, inputs, None, ids))
        assert again.predictions == answer.predictions
        for row, asked, known in zip(inputs, expected.asked, ids, strict=True):
            reference.pending[known] = Waiting(row, asked, reference.version, self.clock.now)
        self.check(name)

    @precondition(lambda self: self.known)
    @rule(share=shares, most=st.integers(1, 4), seed=seeds)
    def late_labels(self, share: int, most: int, seed: int) -> None:
        """Labels of rows that wait are learned, of others they are told apart."""
        name = one_of(sorted(self.known), share)
        reference = self.known[name]
        for known in [known for known, row in reference.pending.items() if self.clock.now - row.at > 7 * DAY]:
            del reference.pending[known]
        waiting, old = list(reference.pending)[:most], sorted(reference.ids)[:1]
        targets = batches(1, len(waiting) or 1, seed)[0][1][: len(waiting)]
        answer = self.run(self.streams.labels(name, [*waiting, *old, "nobody"], [*targets, *[1.0] * len(old), 1.0]))
        assert (answer.accepted, answer.duplicates, answer.unknown) == (len(waiting), len(old), ["nobody"])
        if waiting:
            reference.label(waiting, targets)
        self.check(name)

    @precondition(lambda self: self.known)
    @rule(share=shares, key=st.sampled_from("ab"), seed=st.integers(0, 1))
    def feedback_under_a_key(self, share: int, key: str, seed: int) -> None:
        """Done once a day; another request under the key is refused."""
        name = one_of(sorted(self.known), share)
        reference, (inputs, targets) = self.known[name], batches(1, 2, seed)[0]
        asked = asked_once(key, {"inputs": inputs, "targets": targets}, with_predictions=False)
        before = self.answers.get((name, key))
        if before is not None and self.clock.now - before[0] > DAY:
            before = None
        if before is not None and before[1] != seed:
            with pytest.raises(InvalidError):
                self.run(self.streams.feedback_once(asked, name, inputs, targets))
            return
        body, replayed = self.run(self.streams.feedback_once(asked, name, inputs, targets))
        assert replayed == (before is not None)
        if before is None:
            reference.learn(inputs, targets)
            self.answers[name, key] = (self.clock.now, seed, body)
        else:
            assert body == before[2]
        self.check(name)

    @precondition(lambda self: self.known)
    @rule(share=shares)
    def reset(self, share: int) -> None:
        """A revision, with the state of the start."""
        name = one_of(sorted(self.known), share)
        self.run(self.streams.reset(name))
        self.known[name].reset()
        self.check(name)

    @precondition(lambda self: self.known)
    @rule(share=shares, revision=shares)
    def roll_back(self, share: int, revision: int) -> None:
        """To any revision, also to one that was rolled back."""
        name = one_of(sorted(self.known), share)
        reference = self.known[name]
        to = one_of(range(reference.revision + 1), revision)
        assert self.run(self.streams.history.roll_back(name, to, None)) == to
        reference.roll_back(to)
        self.check(name)

    @precondition(lambda self: self.known)
    @rule(share=shares, config=st.sampled_from([{}, {"alarms_per_1000": 5.0}, {"detector": "page_hinkley"}]))
    def configure(self, share: int, config: Config) -> None:
        """Another config, at the same revision."""
        name = one_of(sorted(self.known), share)
        self.run(self.streams.put(name, "reg", config))
        self.known[name].configure(config)
        self.check(name)

    @rule(version=st.sampled_from([1, 2]))
    def activate(self, version: int) -> None:
        """All streams learn their rows again."""
        self.run(self.streams.catalogue.activate("reg", version))
        self.run(self.streams._activation.done())
        self.active = version
        self.brought_along()
        for name in self.known:
            self.check(name)

    @precondition(lambda self: self.known)
    @rule(share=shares)
    def export(self, share: int) -> None:
        """A stream as a file."""
        name = one_of(sorted(self.known), share)
        self.files = [*self.files, (self.run(self.streams.history.export(name)), self.known[name].copy())][-3:]

    @precondition(lambda self: self.files)
    @rule(name=names, share=shares)
    def take_over(self, name: str, share: int) -> None:
        """A file puts its state in place, in a new stream or in one that is there."""
        data, other = one_of(self.files, share)
        reference = self.known.get(name)
        if other.rows_seen + (reference.rows_seen if reference else 0) > ROWS_MAX:
            return
        assert self.run(self.streams.history.restore(name, data)) == (reference is None)
        reference = self.known.setdefault(name, Reference(engine_of, other.version))
        reference.take_over(other)
        self.check(name)

    @precondition(lambda self: len(self.known) > 1)
    @rule(share=shares)
    def delete(self, share: int) -> None:
        """Gone, with its ids and keys."""
        name = one_of(sorted(self.known), share)
        self.run(self.streams.delete(name))
        del self.known[name]
        self.answers = {place: kept for place, kept in self.answers.items() if place[0] != name}
        with pytest.raises(NotFoundError):
            self.run(self.streams.get(name))

    # --- what happens ---

    @rule(days=st.sampled_from([0.1, 0.9, 4.0]))
    def time_passes(self, days: float) -> None:
        """Keys are forgotten after a day, predictions after a week."""
        self.clock.now += days * DAY

    @precondition(lambda self: self.known)
    @rule(share=shares, after=st.integers(1, 400), seed=seeds)
    def commit_fails(self, share: int, after: int, seed: int) -> None:
        """Nothing has happened, or all of it where the failure came too late."""
        name = one_of(sorted(self.known), share)
        inputs, targets = batches(1, 3, seed)[0]
        self.fail(after)
        try:
            self.run(self.streams.feedback(name, inputs, targets))
        except UnavailableError:
            pass
        else:
            self.known[name].learn(inputs, targets)
        finally:
            self.mend()
        self.check(name)

    @rule()
    def restart(self) -> None:
        """An orderly end, and another process."""
        self.run(self.streams.close())
        self.begin()
