"""The uploading client reads while it writes; rows and times are those of the commits that it is told of."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from loadtest.target import TargetError
from loadtest.upload import Uploaded, committed_s, rows_per_second, send

OK = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(text: bytes) -> bytes:
    """A piece of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(text), text)


@asynccontextmanager
async def answering(*, each: bytes, last: bytes, head: bytes = OK) -> AsyncIterator[int]:
    """The port of a server that says ``each`` for every piece of an upload, and ``last`` at its end."""
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(head)
            while size := int(await reader.readuntil(b"\r\n"), 16):
                await reader.readexactly(size + 2)
                writer.write(each)
            writer.write(last)
        except asyncio.IncompleteReadError:
            pass  # the client has seen enough
        finally:
            writer.close()
            await writer.wait_closed()
            ended.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            await ended.wait()


def uploaded(*, each: bytes, last: bytes, head: bytes = OK, rate: float = 100.0) -> Uploaded:
    """An upload of 0.1 s to such a server, batches of two rows."""

    async def run() -> Uploaded:
        batches = ((number / rate, b"1\n2\n") for number in itertools.count())
        async with answering(each=each, last=last, head=head) as port:
            return await send(port, 2, batches, 0.1)

    return asyncio.run(run())


def test_commits_are_counted_as_they_are_told() -> None:
    """A line may tell of a batch; its rows are added up, and the line of totals is none of them."""
    line = chunk(b'{"accepted": 2, "batches": 1}\n')
    found = uploaded(each=line, last=chunk(b'{"done": true, "accepted": 99}\n') + b"0\r\n\r\n")
    assert 1 <= found.batches <= 10
    assert [rows for _, rows in found.commits] == [2 * number for number in range(1, found.batches + 1)]
    assert len(found.late_s) == found.batches
    assert [at for at, _ in found.commits] == sorted(at for at, _ in found.commits)


def test_lines_are_read_however_they_are_cut() -> None:
    """One line in two pieces."""
    halves = chunk(b'{"accepted": 2, ') + chunk(b'"batches": 1}\n')
    found = uploaded(each=halves, last=chunk(b'{"done": true}\n') + b"0\r\n\r\n")
    assert found.commits[-1][1] == 2 * found.batches


def test_an_upload_that_ends_early_is_no_measurement() -> None:
    """The server's reason is told."""
    last = chunk(b'{"done": false, "error": {"detail": "row 3 is bad"}}\n') + b"0\r\n\r\n"
    with pytest.raises(TargetError, match="ended early: row 3 is bad"):
        uploaded(each=b"", last=last)


def test_an_upload_that_is_refused_is_no_measurement() -> None:
    """With the answer in words."""
    with pytest.raises(TargetError, match="refused: no such model"):
        uploaded(head=b"HTTP/1.1 404 Not Found\r\ncontent-length: 13\r\n\r\nno such model", each=b"", last=b"")


def test_a_connection_that_breaks_is_no_measurement() -> None:
    """The last line did not come."""
    with pytest.raises(TargetError, match="was cut"):
        uploaded(each=b"", last=b"")


def test_rows_a_second_are_those_of_a_span() -> None:
    """From its first commit to its last; what came before and after is left out."""
    commits = [(0.1, 100), (0.5, 200), (1.0, 300), (1.5, 500), (9.0, 9_000)]
    assert rows_per_second(commits, 0.5, 2.0) == 300.0
    assert rows_per_second(commits, 1.2, 2.0) != rows_per_second(commits, 1.2, 2.0)  # one commit: not a number


def test_a_batch_is_committed_when_so_many_rows_are() -> None:
    """One word may tell of several batches."""
    assert committed_s([(0.1, 4), (0.3, 12), (0.4, 16)], 4, 4) == [0.1, 0.3, 0.3, 0.4]
