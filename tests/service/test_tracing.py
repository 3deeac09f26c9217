"""Traces: who waited for what, below the caller's span, with nothing of what was sent; nothing where they are off."""

import asyncio
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from service import spans
from service.app import create_app
from service.config import Settings, load_settings
from service.errors import ConfigurationError
from service.spans import OtelTracer
from service.tracing import CURRENT, open_tracer
from tests.service.http_case import run_async, serving
from tests.service.socket_case import listening

ROWS = {"inputs": [[0.517, -1.031], [1.0, 1.0]], "targets": [4.7113, 2.0], "ids": ["s3cr3t-1", "s3cr3t-2"]}
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
FEEDBACK = "POST /v1/streams/{stream}/feedback"


def kept() -> tuple[OtelTracer, InMemorySpanExporter]:
    """A tracer whose spans stay in memory."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return OtelTracer(provider), exporter


def ids(span: ReadableSpan) -> tuple[int, int]:
    """Of its trace and of itself."""
    context = span.get_span_context()
    assert context is not None
    return context.trace_id, context.span_id


def of_trace(exporter: InMemorySpanExporter, trace: str) -> list[ReadableSpan]:
    """Spans of one trace, in the order of their beginnings."""
    found = [span for span in exporter.get_finished_spans() if f"{ids(span)[0]:032x}" == trace]
    return sorted(found, key=lambda span: span.start_time or 0)


def tree(spans: list[ReadableSpan]) -> set[tuple[str, str]]:
    """Each span with the one that it is below; the caller's, which is not ours, by its id."""
    names = {ids(span)[1]: label(span) for span in spans}
    return {
        (names.get(span.parent.span_id, f"{span.parent.span_id:016x}") if span.parent else "", label(span))
        for span in spans
    }


def label(span: ReadableSpan) -> str:
    """A span's name, of a queue with which."""
    queue = (span.attributes or {}).get("acclimate.queue")
    return f"{span.name} {queue}" if queue else span.name


@run_async
async def test_feedback_is_traced_from_the_request_to_its_commit() -> None:
    """Below the client's span: the request, its queue, learning, and within that the step and the commit."""
    tracer, exporter = kept()
    async with serving(tracer=tracer) as (client, _):
        await client.put("/v1/streams/s1", json={"model": "reg"})
        answer = await client.post("/v1/streams/s1/feedback", json=ROWS, headers=SAMPLED)
    assert answer.status_code == 200
    found = of_trace(exporter, TRACE)
    assert tree(found) == {
        (PARENT, FEEDBACK),
        (FEEDBACK, "queue loading"),
        (FEEDBACK, "load"),
        (FEEDBACK, "queue learning"),
        (FEEDBACK, "learn"),
        ("learn", "step"),
        ("learn", "queue store"),
        ("learn", "commit"),
    }
    at = {label(span): (span.start_time or 0, span.end_time or 0) for span in found}
    assert at["queue learning"][1] == at["learn"][0] == at["step"][0]
    assert at["step"][1] <= at["queue store"][0] <= at["commit"][0] <= at["commit"][1] <= at["learn"][1]
    assert at[FEEDBACK][0] <= at["queue learning"][0]
    assert at["learn"][1] <= at[FEEDBACK][1]
    (request,) = (span for span in found if span.name == FEEDBACK)
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/streams/{stream}/feedback",
        "http.response.status_code": 200,
        "acclimate.stream": "s1",
        "acclimate.request_id": answer.headers["x-request-id"],
    }


@run_async
async def test_nothing_of_the_rows_is_in_a_trace() -> None:
    """No input, target, id or answer, of requests that are taken and of those that are not."""
    tracer, exporter = kept()
    async with serving(tracer=tracer) as (client, _):
        await client.put("/v1/streams/s1", json={"model": "reg", "metadata": {"note": "s3cr3t"}})
        for body in (ROWS, ROWS | {"targets": ["s3cr3t", 1.0]}):
            await client.post("/v1/streams/s1/feedback?x=s3cr3t", json=body)
            await client.post("/v1/streams/s1/predict", json={"inputs": body["inputs"]})
        await client.get("/v1/streams/%20s3cr3t")
    told = "".join(f"{span.name}{dict(span.attributes or {})}{span.events}" for span in exporter.get_finished_spans())
    assert FEEDBACK in told
    assert not [secret for secret in ("s3cr3t", "4.7113", "0.517", "1.031") if secret in told]


@run_async
async def test_requests_of_one_tick_have_spans_of_their_own() -> None:
    """Two streams that learn together: each trace is whole, and says that there were two."""
    tracer, exporter = kept()
    traces = [f"{number:032x}" for number in (1, 2)]
    async with serving(tracer=tracer) as (client, _):
        for stream in ("a", "b"):
            await client.put(f"/v1/streams/{stream}", json={"model": "reg"})
            await client.post(f"/v1/streams/{stream}/feedback", json=ROWS)
        asked = [
            client.post(
                f"/v1/streams/{stream}/feedback",
                json={"inputs": [[1.0, 2.0]], "targets": [3.0]},
                headers={"traceparent": f"00-{trace}-{PARENT}-01"},
            )
            for stream, trace in zip(("a", "b"), traces, strict=True)
        ]
        await asyncio.gather(*asked)
    for trace in traces:
        found = of_trace(exporter, trace)
        assert sorted(label(span) for span in found) == sorted(
            [FEEDBACK, "queue learning", "learn", "step", "queue store", "commit"]
        )
        assert [(span.attributes or {})["acclimate.items"] for span in found if span.name == "learn"] == [2]


@run_async
async def test_what_the_caller_does_not_sample_is_not_traced() -> None:
    """Nor is health; a header that is no context begins a trace of its own; an error of ours is one there."""
    tracer, exporter = kept()
    async with serving(tracer=tracer) as (client, streams):
        await client.get("/livez", headers=SAMPLED)
        await client.get("/metrics", headers=SAMPLED)
        await client.get("/v1/models", headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
        assert exporter.get_finished_spans() == ()
        await client.get("/v1/models", headers={"traceparent": "s3cr3t"})
        streams._ready = False
        await client.get("/v1/streams/s")
        streams._ready = True
    first, second = exporter.get_finished_spans()
    assert (first.parent, first.name, first.status.is_ok) == (None, "GET /v1/models", True)
    assert (second.name, second.status.is_ok) == ("GET /v1/streams/{stream}", False)


@run_async
async def test_a_long_request_has_a_bounded_number_of_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    """And says that some were left out."""
    monkeypatch.setattr(spans.Budget.__init__, "__defaults__", (7, False))
    tracer, exporter = kept()
    items = [{"stream": "s", "inputs": [[1.0, 2.0]], "targets": [float(n)], "model": "reg"} for n in range(5)]
    async with serving(tracer=tracer) as (client, _):
        answer = await client.post("/v1/feedback", json={"items": items})
    assert all("error" not in result for result in answer.json()["results"])
    found = exporter.get_finished_spans()
    assert 1 < len(found) <= 8
    (request,) = (span for span in found if span.name == "POST /v1/feedback")
    assert (request.attributes or {})["acclimate.spans_left_out"] is True


@run_async
async def test_times_to_answer_have_traces_as_examples() -> None:
    """For a scraper that takes OpenMetrics; the plain format has none, and the log line says the trace, too."""
    tracer, _ = kept()
    async with serving(tracer=tracer) as (client, _):
        await client.get("/v1/models", headers=SAMPLED)
        plain = await client.get("/metrics")
        asked = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5"
        answer = await client.get("/metrics", headers={"accept": asked})
    assert answer.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    examples: list[Any] = [
        sample.exemplar
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        if sample.name == "acclimate_http_request_duration_seconds_bucket" and sample.exemplar is not None
    ]
    assert [example.labels for example in examples] == [{"trace_id": TRACE}]
    assert TRACE not in plain.text
    assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


@contextmanager
def collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """A collector's address, and what it has got."""
    got: list[ExportTraceServiceRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            got.append(ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", got
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@run_async
async def test_a_collector_gets_what_a_real_server_did(tmp_path: Path) -> None:
    """Over sockets at both ends; what is not sent yet is sent when the server stops."""
    with collector() as (address, got):
        application = create_app(Settings(data_dir=tmp_path / "data", otlp_endpoint=address))
        async with (
            application.router.lifespan_context(application),
            listening(application) as host,
            httpx.AsyncClient(base_url=f"http://{host}") as client,
        ):
            await client.put("/v1/streams/s", json={"model": "sinusoid"})
            body = {"inputs": [[0.5]], "targets": [1.0]}
            await client.post("/v1/streams/s/feedback", json=body, headers=SAMPLED)
    groups = [group for request in got for group in request.resource_spans]
    (service,) = {
        each.value.string_value for group in groups for each in group.resource.attributes if each.key == "service.name"
    }
    assert service == "acclimate"
    sent = [span for group in groups for scope in group.scope_spans for span in scope.spans]
    (commit,) = (span for span in sent if span.name == "commit" and span.trace_id.hex() == TRACE)
    (learn,) = (span for span in sent if span.name == "learn" and span.trace_id.hex() == TRACE)
    assert commit.parent_span_id == learn.span_id


def test_a_collector_that_is_gone_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not sent is given up; the exporter alone would try for ten seconds."""
    monkeypatch.setattr(spans, "CLOSE_SECONDS", 0.01)
    with collector() as (address, _):
        pass
    tracer = open_tracer(address)
    assert tracer is not None
    traced = tracer.request({"type": "http", "method": "GET", "headers": []}, "r1")
    assert traced is not None
    traced.end("/v1/models", 200, None)
    began = time.monotonic()
    tracer.close()
    assert time.monotonic() - began < 5
    CURRENT.set(())


def test_nothing_is_imported_while_traces_are_off() -> None:
    """One module imports the extra, none imports that one, and without a collector it is not loaded."""
    assert open_tracer(None) is None
    assert open_tracer("") is None
    forbidden = r"(?m)^\s*(from|import) (opentelemetry|service\.spans)|^\s*from service import .*\bspans\b"
    imports = re.compile(forbidden)
    found = [path.as_posix() for path in Path("service").rglob("*.py") if imports.search(path.read_text("utf-8"))]
    assert found == ["service/spans.py"]


def test_without_the_extra_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of a server that says nothing and traces nothing."""
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    monkeypatch.delitem(sys.modules, "service.spans")
    with pytest.raises(ConfigurationError, match=r"pip install 'acclimate\[otel\]'"):
        open_tracer("http://127.0.0.1:4318")


@pytest.mark.parametrize("name", ["ACCLIMATE_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"])
def test_the_collector_is_named_as_everywhere(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By our variable or by the standard one."""
    monkeypatch.setenv(name, "http://collector:4318")
    assert load_settings().otlp_endpoint == "http://collector:4318"
