"""Streams do what the reference does, whatever is asked of them in whatever order, with faults in between.

``make model-test N=10000`` runs as many schedules over each store; they are the same at every run.
"""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import rule, run_state_machine_as_test

from service.errors import UnavailableError
from service.store import SqliteStore, Store
from tests.service.machine import Machine
from tests.service.streams_case import FailingStore

SCHEDULES = int(os.environ.get("SCHEDULES", "15"))
STEPS = 40


class InMemory(Machine):
    """Over the memory store; what it keeps survives its closing."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = FailingStore()

    def open_store(self) -> Store:
        """The same one."""
        return self.kept

    def fail(self, after: int) -> None:
        """At once."""
        del after
        self.kept.error = UnavailableError("broken")

    def mend(self) -> None:
        """Whole again."""
        self.kept.error = None


class OnDisk(Machine):
    """Over SQLite, also with processes that are killed."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(prefix="acclimate-model-test-"))
        self.lives = 0

    @property
    def directory(self) -> Path:
        """The data directory of the present process."""
        return self.place / str(self.lives)

    def open_store(self) -> Store:
        """What is in the directory."""
        return SqliteStore(self.directory)

    def fail(self, after: int) -> None:
        """After so many instructions of SQLite, once; not in COMMIT, where its handler is also asked after the fact."""
        assert isinstance(self.store, SqliteStore)
        left = iter([0] * after + [1])
        statements = [""]
        self.store._writer.set_trace_callback(statements.append)
        self.store._writer.set_progress_handler(lambda: 0 if statements[-1] == "COMMIT" else next(left, 0), 1)

    def mend(self) -> None:
        """Whole again."""
        assert isinstance(self.store, SqliteStore)
        self.store._writer.set_progress_handler(None, 1)
        self.store._writer.set_trace_callback(None)

    @rule()
    def crash(self) -> None:
        """The files as they are go to another process; this one ends without a word."""
        before, streams = self.directory, self.streams
        self.lives += 1
        shutil.copytree(before, self.directory)
        self.run(streams.close())
        shutil.rmtree(before)
        self.begin()

    def teardown(self) -> None:
        """And the files are removed."""
        try:
            super().teardown()
        finally:
            shutil.rmtree(self.place)


@pytest.mark.parametrize("machine", [InMemory, OnDisk])
def test_streams_do_what_the_reference_does(machine: type[Machine]) -> None:
    """Any order of requests, faults, crashes and the passing of time."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=SCHEDULES,
            stateful_step_count=STEPS,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
