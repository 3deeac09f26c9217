"""Helpers of the tests of damage: a store with all that a store keeps, and all that can be asked of it."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from models import InputError
from service.errors import ConfigurationError, ServiceError
from service.idempotency import asked_once
from service.store import SqliteStore, UploadPart
from service.streams import Streams
from service.types import Predicted
from tests.service.streams_case import PROBE, batches, opened

BLOCK_BYTES = 512
FILE, WAL = "streams.sqlite3", "streams.sqlite3-wal"
NAMES = ("s0", "s1", "s2")
ASKED = asked_once("k", {}, with_predictions=False)
CHANGES = ("repeat", "roll back", "old id", "late label")
NAMING = ("DamagedError", "ConfigurationError")
ABSENT = "NotFoundError"
"""What is answered where an index does not lead to a stream: the check alone sees that."""
Answers = dict[str, Any]


class Damage(NamedTuple):
    """What is done to a file: its bytes before ``start``, what becomes of ``length`` bytes, whether the rest is cut."""

    file: str
    start: int
    kind: str

    def apply(self, directory: Path) -> None:
        """Do it."""
        path = directory / self.file
        data = bytearray(path.read_bytes())
        block = slice(self.start, min(self.start + BLOCK_BYTES, len(data)))
        if self.kind == "cut":
            del data[self.start :]
        elif self.kind == "flip":
            data[block] = bytes(255 - byte for byte in data[block])
        elif self.kind == "zero":
            data[block] = bytes(block.stop - block.start)
        else:
            data[(block.start + block.stop) // 2] ^= 4  # one bit
        path.write_bytes(data)


def damages(path: Path, every: int) -> Iterator[Damage]:
    """Every n-th damage of a file: each block of it, in each way."""
    blocks = range(0, path.stat().st_size, BLOCK_BYTES)
    ways = ((start, kind) for start in blocks for kind in ("flip", "bit", "zero", "cut"))
    return (Damage(path.name, *way) for way in islice(ways, every - 1, None, every))


async def fill(streams: Streams) -> None:
    """Streams with rows, ids, rows that wait, snapshots, alarms, an upload and an answer; and one that is deleted."""
    for number, name in enumerate(NAMES):
        await streams.put(name, "reg", {"alarms_per_1000": 2.0} if number else None, {"note": name})
        for step, (inputs, targets) in enumerate(batches(16, seed=number, jump=9)):
            await streams.feedback(name, inputs, targets, [f"{name}-{step}-{row}" for row in range(len(inputs))])
        await streams.predict(name, PROBE[:1], None, [f"late-{name}"])
        await streams.reset(name)
        await streams.feedback(name, *batches(1, seed=5)[0], part=UploadPart("up", 0, 2))
        await streams.feedback_once(ASKED, name, *batches(1, seed=6)[0])
    await streams.put("gone", "reg")
    await streams.feedback("gone", *batches(1)[0])
    await streams.delete("gone")


async def ask(streams: Streams, name: str) -> Answers:
    """All that a stream tells; what changes nothing first."""
    inputs, targets = batches(1, seed=6)[0]
    questions: dict[str, Callable[[], Awaitable[Any]]] = {
        "info": lambda: streams.get(name),
        "predict": lambda: streams.predict(name, PROBE),
        "events": lambda: streams.events(name, None, 1_000),
        "revisions": lambda: streams.history.revisions(name, 0, 1_000),
        "uploaded": lambda: streams.uploaded("up", name),
        "repeat": lambda: streams.feedback_once(ASKED, name, inputs, targets),
        "roll back": lambda: streams.history.roll_back(name, 5, None),
        "then": lambda: streams.predict(name, PROBE),
        "old id": lambda: streams.feedback(name, PROBE[:1], [1.0], [f"{name}-12-0"]),
        "late label": lambda: streams.labels(name, [f"late-{name}"], [1.0]),
        "after": lambda: streams.predict(name, PROBE),
    }
    found: Answers = {}
    for what, question in questions.items():
        found[what] = await told(question())
        if what in CHANGES and isinstance(found[what], Named):
            break  # what follows is about a stream that was not changed
    return found


async def told(question: Awaitable[Any]) -> Any:
    """An answer, or the problem in its place; anything else that is raised is nobody's answer."""
    try:
        return await question
    except (ServiceError, InputError) as error:
        return Named(type(error).__name__, str(error))


class Named(NamedTuple):
    """A problem that was answered."""

    kind: str
    text: str


async def _all_answers(directory: Path) -> Answers:
    async with opened(SqliteStore(directory), given={}) as streams:
        found: Answers = {"models": streams.models(), "list": await told(streams.list())}
        for name in NAMES:
            found |= {f"{name} {what}": value for what, value in (await ask(streams, name)).items()}
        return found


def answers(directory: Path, damage: Damage | None = None) -> Answers | Named:
    """What a copy of a data directory tells, after damage; or why it is not opened."""
    copy = directory.with_name("copy")
    shutil.copytree(directory, copy)
    try:
        if damage is not None:
            damage.apply(copy)
        return asyncio.run(_all_answers(copy))
    except (ConfigurationError, ServiceError) as error:
        return Named(type(error).__name__, str(error))
    finally:
        shutil.rmtree(copy)


def differences(found: Answers | Named, expected: Answers) -> Sequence[str]:
    """What is answered otherwise, and not with damage that is named."""
    if isinstance(found, Named):
        return [] if found.kind in NAMING else [f"not opened: {found.text}"]
    wrong = [what for what, value in found.items() if not _same(value, expected.get(what))]
    return [what for what in wrong if not (isinstance(found[what], Named) and found[what].kind in NAMING)]


def _same(found: Any, expected: Any) -> bool:
    """Predictions may differ by what float32 allows: a state is made again from an older snapshot where one is gone."""
    if isinstance(found, Predicted) and isinstance(expected, Predicted):
        found, near = replace(found, predictions=[], std=[]), (found.predictions, found.std)
        expected, wanted = replace(expected, predictions=[], std=[]), (expected.predictions, expected.std)
        return bool(found == expected and np.allclose(near, wanted, rtol=1e-5, atol=1e-5))
    return bool(found == expected)
