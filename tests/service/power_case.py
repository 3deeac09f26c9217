"""Helpers of the tests of power cuts: what a process did to its files, and what of that a disk has at any moment.

``strace`` writes down each write, truncation, renaming and sync. What was not synced may be there or not when the power
goes: a file's bytes after its own sync, a name after that of its directory.
"""

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

WRITER = """
import sys
from pathlib import Path
from service.errors import ConfigurationError, ServiceError
from service.store import Append, Create, PutSnapshot, SqliteStore

def tell(text):
    sys.stdout.write(text + chr(10))
    sys.stdout.flush()

try:
    store = SqliteStore(Path(sys.argv[1]))
except ConfigurationError:
    tell("not opened")
    raise SystemExit
store._writer.execute("PRAGMA wal_autocheckpoint=20")
record = None
for number in range(12):
    try:
        if record is None:
            record = store.write([Create("s", "m", 1, {}, {}, 1.0)])[0].record
        rows = [(f"r{number}", number)]
        record = store.write([Append(record, "feedback", 2.0, 1, str(number).encode(), "stable", ids=rows)])[0].record
        tell(f"acknowledged {number}")
        if number % 3 == 2:
            store.write([PutSnapshot(record, {}, bytes(20_000))])
    except ServiceError as error:
        tell(f"refused {number} {error.status}")
store.close()
"""
"""A process that appends entries, whose payloads are numbers, and says which were committed."""
CALLS = ("pwrite64", "ftruncate", "rename", "unlink", "fsync", "fdatasync")
_CALL = re.compile(r'(\w+)\((?:\d+<(.*?)>|"(.*?)")(?:, (.*))?\) += (-?\d+)')
_ESCAPED = re.compile(rb"\\x(..)")


class Run(NamedTuple):
    """A traced process: what it said, where it failed, its exit code, and strace's lines."""

    said: Sequence[str]
    failure: str
    code: int
    lines: Sequence[str]


def traced(directory: Path, log: Path, *options: str) -> Run:
    """Run the writer under strace; ``options`` may let calls fail."""
    tracing = ["strace", "-y", "-xx", "-s", "1000000", "-e", f"trace=write,{','.join(CALLS)}", "-o", str(log), *options]
    command = [*tracing, sys.executable, "-c", WRITER, str(directory)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return Run(ended.stdout.splitlines(), ended.stderr, ended.returncode, log.read_text("ascii").splitlines())


@dataclass
class Disk:
    """Files of a directory as the process sees them, and as they are when the power goes.

    Attributes:
        names: Each file's bytes; a list of one item, which goes along with the file when it is renamed.
        synced: Names as of the directory's last sync, with files whose bytes are those of their last sync.
    """

    directory: str
    names: dict[str, "File"] = field(default_factory=dict)
    synced: dict[str, "File"] = field(default_factory=dict)

    def do(self, call: str, path: str, rest: str) -> None:
        """One call that succeeded."""
        name = Path(path).name
        if call in {"fsync", "fdatasync"}:
            if path == self.directory:
                self.synced = dict(self.names)
            elif name in self.names:
                self.names[name].sync()
        elif call == "pwrite64":
            data, _, offset = rest.split(", ")
            self.names.setdefault(name, File()).write(_bytes(data), int(offset))
        elif call == "ftruncate":
            self.names.setdefault(name, File()).cut(int(rest))
        elif call == "unlink":
            self.names.pop(name, None)
        elif name in self.names:
            self.names[Path(_bytes(rest).decode()).name] = self.names.pop(name)

    def cuts(self) -> Iterator[Mapping[str, bytes]]:
        """What may be left: all that was not synced is lost, or half of each file's calls, or nothing."""
        yield {name: file.left(0) for name, file in self.synced.items()}
        yield {name: file.left(len(file.calls) // 2) for name, file in self.names.items()}
        yield {name: file.left(len(file.calls)) for name, file in self.names.items()}


@dataclass
class File:
    """Bytes as of the last sync, and the calls since then: bytes and where, or ``None`` and the new length."""

    kept: bytearray = field(default_factory=bytearray)
    calls: list[tuple[bytes | None, int]] = field(default_factory=list)

    def write(self, data: bytes, offset: int) -> None:
        """Bytes that are not synced."""
        self.calls.append((data, offset))

    def cut(self, length: int) -> None:
        """A length that is not synced."""
        self.calls.append((None, length))

    def sync(self) -> None:
        """All of it is."""
        self.kept = bytearray(self.left(len(self.calls)))
        self.calls = []

    def left(self, calls: int) -> bytes:
        """The file with so many of the calls since its last sync."""
        data = deepcopy(self.kept)
        for given, place in self.calls[:calls]:
            if given is None:
                data = data[:place].ljust(place, b"\0")
            else:
                data = data.ljust(place, b"\0")
                data[place : place + len(given)] = given
        return bytes(data)


class Cut(NamedTuple):
    """The power goes: what was acknowledged by then, and the files that are left."""

    acknowledged: list[int]
    files: Mapping[str, bytes]


def cuts(directory: Path, lines: Sequence[str]) -> Iterator[Cut]:
    """The power goes before each sync of a recorded run, and at its end."""
    disk, acknowledged = Disk(str(directory)), list[int]()
    for line in lines:
        found = _CALL.match(line)
        if found is None or int(found[5]) < 0:
            continue
        call, path = found[1], _bytes(found[2] or found[3]).decode()
        if call == "write":
            said = _bytes(found[4].split(", ")[0]).decode()
            acknowledged += [int(said.split()[1])] if said.startswith("acknowledged") else []
            continue
        if call in {"fsync", "fdatasync"}:
            yield from (Cut(list(acknowledged), files) for files in disk.cuts())
        if path == disk.directory or Path(path).is_relative_to(disk.directory):
            disk.do(call, path, found[4] or "")
    yield from (Cut(list(acknowledged), files) for files in disk.cuts())


def _bytes(text: str) -> bytes:
    """What strace wrote in hexadecimal, without its quotes."""
    return _ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()), text.strip('"').encode())
