"""The figures of a run."""

import io

import pytest
from rich.console import Console

from loadtest.generator import UNSENT, Run, Sample
from loadtest.histogram import Histogram
from loadtest.report import percentiles_ms, summarize, table


def samples(*latencies_s: float, outcome: str = "200", late_s: float = 0.0) -> list[Sample]:
    """Requests due every 10 ms that took so long."""
    return [Sample(i * 0.01, i * 0.01, i * 0.01 + took, late_s, outcome) for i, took in enumerate(latencies_s)]


def test_percentiles_of_nothing_are_left_out() -> None:
    """Without values there is none to report."""
    assert percentiles_ms(Histogram()) == {}


def test_warmup_is_left_out() -> None:
    """A slow first second does not show in the percentiles."""
    run = Run(samples(*[9.0] * 5, *[0.002] * 10), in_flight_peak=2, cpu_share=0.1)
    report = summarize("predict", 100.0, run, warmup=5, in_flight_max=10)
    assert (report.scheduled, report.ok) == (10, 10)
    assert percentiles_ms(report.latency) == {"p50": 2.0, "p90": 2.0, "p99": 2.0, "p99.9": 2.0, "max": 2.0}


def test_achieved_rate_counts_answers_until_the_last_one() -> None:
    """100 requests due within a second of which the last is answered a second late make 50 a second."""
    run = Run(samples(*[0.001] * 99, 1.01), in_flight_peak=2, cpu_share=0.1)
    report = summarize("predict", 100.0, run, warmup=0, in_flight_max=10)
    assert report.rate_achieved == 50.0


def test_requests_without_an_answer_count_as_long_as_they_were_waited_for() -> None:
    """Timeouts and requests that never left belong to the tail; refusals do not make the server look fast."""
    done = samples(*[0.002] * 97)
    lost = [Sample(0.97, 0.97, 10.97, 0.0, "timeout"), Sample(0.98, 2.98, 2.98, 0.0, UNSENT)]
    refused = [Sample(0.99, 0.99, 0.9901, 0.0, "429")]
    run = Run([*done, *lost, *refused], in_flight_peak=3, cpu_share=0.1)
    report = summarize("feedback", 100.0, run, warmup=0, in_flight_max=10)
    assert report.outcomes == {"200": 97, "429": 1, "timeout": 1, UNSENT: 1}
    assert percentiles_ms(report.latency)["p50"] == 2.0
    assert percentiles_ms(report.latency)["max"] == pytest.approx(10_000.0, rel=1e-3)
    assert percentiles_ms(report.service)["max"] == 2.0
    assert report.as_json()["histogram"]["2000"] == 97
    assert report.ok == 97


def test_a_healthy_run_names_no_limit() -> None:
    """A generator with time to spare, in front of a server that keeps up, has nothing to confess."""
    run = Run(samples(*[0.002] * 100), in_flight_peak=2, cpu_share=0.4)
    assert summarize("predict", 100.0, run, warmup=0, in_flight_max=10).limits == ()


def test_the_report_says_when_the_generator_is_the_limit() -> None:
    """A full core, late sending and a full house are each named."""
    busy = Run(samples(*[0.002] * 10), in_flight_peak=1, cpu_share=0.97)
    late = Run(samples(*[0.002] * 10, late_s=0.05), in_flight_peak=1, cpu_share=0.3)
    full = Run(samples(*[0.002] * 10), in_flight_peak=10, cpu_share=0.3)
    reports = [summarize("predict", 100.0, run, warmup=0, in_flight_max=10) for run in (busy, late, full)]
    said = [" ".join(report.limits) for report in reports]
    assert "used 97% of its core" in said[0]
    assert "sent 50.0 ms late" in said[1]
    assert "all 10 places in flight were taken" in said[2]
    assert [report.limited for report in reports] == [True, True, False]


def test_the_table_shows_a_scenario_without_answers() -> None:
    """A server that refuses everything still makes a readable row."""
    run = Run(samples(*[0.001] * 3, outcome="429"), in_flight_peak=1, cpu_share=0.1)
    out = io.StringIO()
    console = Console(width=140, file=out)
    console.print(table([summarize("predict", 100.0, run, warmup=0, in_flight_max=10)]))
    assert "3×429" in out.getvalue()
