"""The closed-loop client counts what is answered, and what is refused ends the run."""

import asyncio

import orjson
import pytest

from loadtest import http_rate
from loadtest.http_rate import Rate, _result, line, measured, requests_of


def test_requests_are_whole_and_name_their_stream() -> None:
    """Head and body fit; feedback brings a label a row."""
    (one,) = requests_of("feedback", 3, 2, ["s7"], 80)
    head, _, body = one.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/streams/s7/feedback HTTP/1.1\r\n")
    assert f"content-length: {len(body)}".encode() in head
    sent = orjson.loads(body)
    assert (len(sent["inputs"]), len(sent["inputs"][0]), len(sent["targets"])) == (3, 2, 3)


def test_answers_are_counted_however_they_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that answers in two pieces, every third time with 429."""
    monkeypatch.setattr(http_rate, "CONNECTIONS", 2)
    monkeypatch.setattr(http_rate, "WARM_SECONDS", 0.0)
    answered = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answered
        while await reader.readline():
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]))
            answered += 1
            status = b"429 Slow" if answered % 3 == 0 else b"200 OK"
            writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 4\r\n\r\nab")
            await writer.drain()
            writer.write(b"cd")
        writer.close()

    async def run() -> Rate:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            return await measured(port, requests_of("predict", 1, 1, ["a", "b"], port), 0.05)

    rate = asyncio.run(run())
    assert 0 < rate.per_second * 0.05 <= answered
    assert rate.refused in {answered // 3, (answered - 1) // 3, (answered - 2) // 3}


def test_a_result_is_the_median_of_ratios_and_refusals_end_the_run() -> None:
    """Ratios are taken turn by turn."""
    turns = [[Rate(1000.0, 0.2, 0), Rate(share * 1000.0, 0.1, 0)] for share in (0.5, 0.9, 0.7)]
    result = _result("predict", 1, turns)
    assert (result["ratio"], result["client_busy"]) == (0.7, 0.2)
    assert line(result) == "| predict, 1 rows | 1,000 | 700 | 0.70 (0.50 to 0.90) | 0.8 |"
    with pytest.raises(SystemExit, match="2 requests to predict were not answered with 200"):
        _result("predict", 1, [*turns, [Rate(1.0, 0.0, 0), Rate(1.0, 0.0, 2)]])
