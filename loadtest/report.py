"""What a run amounts to: percentiles, rates, and whether the generator itself was the limit."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from loadtest.generator import UNSENT, Run, Sample
from loadtest.histogram import Histogram

QUANTILES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0))
NO_ANSWER = frozenset({UNSENT, "timeout"})
LAG_MS_MAX = 10.0
"""A generator that sends its 99th percentile later than this measures itself."""
CPU_SHARE_MAX = 0.9
"""One event loop runs on one core: above this share of it there is no room left."""


@dataclass(frozen=True)
class Report:
    """The figures of one scenario.

    Attributes:
        scenario: Its name.
        rate_asked: Requests per second that the schedule holds; of an upload, batches.
        rate_achieved: Requests per second that were answered 2xx, up to the last answer.
        seconds: From the first due time of the measured part to its last answer.
        scheduled: Measured requests.
        ok: Those that were answered 2xx.
        outcomes: How many ended how: status codes, ``timeout``, transport errors, ``unsent``.
        latency: From the *due* time to the answer, so that a server that stalls pays for all requests that it kept
            waiting. Over the answers 2xx, and over requests that got no answer, which count as long as they were
            waited for.
        service: The same from the time the request really left; the difference is waiting for a place in flight.
        generator: ``lag_p99_ms``, ``cpu_share``, ``in_flight_peak``, ``in_flight_max``, as far as they are known.
        limited: Whether the generator itself was the limit, so that the times are not the server's.
        limits: Sentences: what kept the run from showing the server alone. Empty is good.
        figures: What this scenario alone can tell, by name, the unit last.
    """

    scenario: str
    rate_asked: float
    rate_achieved: float
    seconds: float
    scheduled: int
    ok: int
    outcomes: dict[str, int]
    latency: Histogram
    service: Histogram
    generator: dict[str, float]
    limited: bool
    limits: tuple[str, ...]
    figures: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Plain values: percentiles of both histograms, and the counts of ``latency``."""
        plain = {each.name: getattr(self, each.name) for each in fields(self)}
        return plain | {
            "latency": percentiles_ms(self.latency),
            "service": percentiles_ms(self.service),
            "histogram": self.latency.as_json(),
        }


def percentiles_ms(histogram: Histogram) -> dict[str, float]:
    """The reported quantiles in milliseconds; without values an empty dict."""
    return {name: round(histogram.at(q), 3) for name, q in QUANTILES} if len(histogram) else {}


def summarize(scenario: str, rate: float, run: Run, *, warmup: int, in_flight_max: int) -> Report:
    """The report of a run, without its first ``warmup`` requests."""
    samples = run.samples[warmup:]
    ok = [sample for sample in samples if sample.outcome.startswith("2")]
    timed = [sample for sample in samples if sample.outcome.startswith("2") or sample.outcome in NO_ANSWER]
    seconds = max(sample.ended_s for sample in samples) - samples[0].scheduled_s
    # The schedule's own length is the least it takes: n requests stand for n/rate seconds.
    seconds = max(seconds, len(samples) / rate)
    lag_p99_ms = round(Histogram.of(sample.late_s for sample in samples).at(0.99), 3)
    late = said_of_generator(run.cpu_share, lag_p99_ms)
    full = _said_of_places(samples, run, in_flight_max)
    return Report(
        scenario=scenario,
        rate_asked=rate,
        rate_achieved=round(len(ok) / seconds, 2),
        seconds=round(seconds, 3),
        scheduled=len(samples),
        ok=len(ok),
        outcomes=dict(sorted(Counter(sample.outcome for sample in samples).items())),
        latency=Histogram.of(sample.ended_s - sample.scheduled_s for sample in timed),
        service=Histogram.of(sample.ended_s - sample.started_s for sample in ok),
        generator={
            "lag_p99_ms": lag_p99_ms,
            "cpu_share": round(run.cpu_share, 3),
            "in_flight_peak": run.in_flight_peak,
            "in_flight_max": in_flight_max,
        },
        limited=late is not None,
        limits=tuple(sentence for sentence in (late, full) if sentence is not None),
    )


def said_of_generator(cpu_share: float, lag_p99_ms: float) -> str | None:
    """How the generator itself was the limit, as a sentence; ``None`` where it was not."""
    if cpu_share > CPU_SHARE_MAX:
        return f"the generator used {cpu_share:.0%} of its core: it is the limit; lower the rate or run several"
    if lag_p99_ms > LAG_MS_MAX:
        return (
            f"the generator sent {lag_p99_ms:.1f} ms late (p99): the machine is too busy for it; "
            "lower the rate or run it elsewhere"
        )
    return None


def _said_of_places(samples: Sequence[Sample], run: Run, in_flight_max: int) -> str | None:
    if run.in_flight_peak < in_flight_max:
        return None
    unsent = sum(sample.outcome == UNSENT for sample in samples)
    return (
        f"all {in_flight_max} places in flight were taken and {unsent} requests never left: "
        "the server cannot keep up with this rate, or --in-flight is too low"
    )


def table(reports: Sequence[Report]) -> Table:
    """The reports as a table for the terminal, one row each."""
    view = Table(
        title="milliseconds from the due time of a request to its answer", box=SIMPLE_HEAD, collapse_padding=True
    )
    view.add_column("scenario", no_wrap=True)
    for heading in ("asked/s", "got/s", *(name for name, _ in QUANTILES), "ok"):
        view.add_column(heading, justify="right", no_wrap=True)
    view.add_column("other", no_wrap=True)
    for report in reports:
        times = [_figure(report.latency.at(q)) if len(report.latency) else "–" for _, q in QUANTILES]
        other = " ".join(f"{count}×{name}" for name, count in report.outcomes.items() if not name.startswith("2"))
        view.add_row(
            report.scenario,
            f"{report.rate_asked:g}",
            f"{report.rate_achieved:.1f}",
            *times,
            str(report.ok),
            other or "0",
        )
    return view


def _figure(milliseconds: float) -> str:
    """Four digits at most, as far as the size allows."""
    return f"{milliseconds:.{0 if milliseconds >= 1000 else 1 if milliseconds >= 10 else 2}f}"
