"""What a run amounts to: percentiles, rates, and whether the generator itself was the limit."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from loadtest.generator import UNSENT, Run, Sample

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
        scenario: ``predict``, ``feedback`` or ``mixed``.
        rate_asked: Requests per second that the schedule holds.
        rate_achieved: Requests per second that were answered 2xx, up to the last answer.
        seconds: From the first due time of the measured part to its last answer.
        scheduled: Measured requests.
        ok: Those that were answered 2xx.
        outcomes: How many ended how: status codes, ``timeout``, transport errors, ``unsent``.
        latency_ms: Percentiles from the *due* time to the answer, so that a server that stalls pays for all requests
            that it kept waiting. Over the answers 2xx, and over requests that got no answer, which count as long as
            they were waited for.
        service_ms: The same from the time the request really left; the difference is waiting for a place in flight.
        generator: ``lag_p99_ms``, ``cpu_share``, ``in_flight_peak``, ``in_flight_max``.
        limits: Sentences: what kept the run from showing the server alone. Empty is good.
    """

    scenario: str
    rate_asked: float
    rate_achieved: float
    seconds: float
    scheduled: int
    ok: int
    outcomes: dict[str, int]
    latency_ms: dict[str, float]
    service_ms: dict[str, float]
    generator: dict[str, float]
    limits: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)


def quantile(ordered: Sequence[float], q: float) -> float:
    """The smallest value that at least a share ``q`` of the values do not exceed; NaN without values.

    Args:
        ordered: Values in ascending order.
        q: In (0, 1].

    Example:
        >>> quantile([1.0, 2.0, 3.0, 4.0], 0.5), quantile([1.0, 2.0, 3.0, 4.0], 0.99)
        (2.0, 4.0)
    """
    if not ordered:
        return math.nan
    return ordered[max(math.ceil(q * len(ordered) - 1e-9), 1) - 1]


def percentiles_ms(values_s: Sequence[float]) -> dict[str, float]:
    """The reported quantiles of durations in seconds, in milliseconds; without values an empty dict."""
    ordered = sorted(values_s)
    return {name: round(quantile(ordered, q) * 1e3, 3) for name, q in QUANTILES} if ordered else {}


def summarize(scenario: str, rate: float, run: Run, *, warmup: int, in_flight_max: int) -> Report:
    """The report of a run, without its first ``warmup`` requests."""
    samples = run.samples[warmup:]
    ok = [sample for sample in samples if sample.outcome.startswith("2")]
    timed = [sample for sample in samples if sample.outcome.startswith("2") or sample.outcome in NO_ANSWER]
    seconds = max(sample.ended_s for sample in samples) - samples[0].scheduled_s
    # The schedule's own length is the least it takes: n requests stand for n/rate seconds.
    seconds = max(seconds, len(samples) / rate)
    lag_p99_ms = round(quantile(sorted(sample.late_s for sample in samples), 0.99) * 1e3, 3)
    generator = {
        "lag_p99_ms": lag_p99_ms,
        "cpu_share": round(run.cpu_share, 3),
        "in_flight_peak": run.in_flight_peak,
        "in_flight_max": in_flight_max,
    }
    return Report(
        scenario=scenario,
        rate_asked=rate,
        rate_achieved=round(len(ok) / seconds, 2),
        seconds=round(seconds, 3),
        scheduled=len(samples),
        ok=len(ok),
        outcomes=dict(sorted(Counter(sample.outcome for sample in samples).items())),
        latency_ms=percentiles_ms([sample.ended_s - sample.scheduled_s for sample in timed]),
        service_ms=percentiles_ms([sample.ended_s - sample.started_s for sample in ok]),
        generator=generator,
        limits=_limits(samples, run, lag_p99_ms, in_flight_max),
    )


def _limits(samples: Sequence[Sample], run: Run, lag_p99_ms: float, in_flight_max: int) -> tuple[str, ...]:
    """What kept the run from showing the server alone, as sentences."""
    found = []
    if run.cpu_share > CPU_SHARE_MAX:
        found.append(
            f"the generator used {run.cpu_share:.0%} of its core: it is the limit; lower the rate or run several"
        )
    elif lag_p99_ms > LAG_MS_MAX:
        found.append(
            f"the generator sent {lag_p99_ms:.1f} ms late (p99): the machine is too busy for it; "
            "lower the rate or run it elsewhere"
        )
    if run.in_flight_peak >= in_flight_max:
        unsent = sum(sample.outcome == UNSENT for sample in samples)
        found.append(
            f"all {in_flight_max} places in flight were taken and {unsent} requests never left: "
            "the server cannot keep up with this rate, or --in-flight is too low"
        )
    return tuple(found)


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
        times = [_figure(report.latency_ms[name]) if report.latency_ms else "–" for name, _ in QUANTILES]
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
