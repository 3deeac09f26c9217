"""What is compared from run to run, each in units of the bare route measured just before it."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from loadtest.bench.calibration import Calibration
from loadtest.report import Report

Better = Literal["less", "more"]


class Measured(NamedTuple):
    """One scenario in one turn, and what the machine could do just before."""

    report: Report
    calibration: Calibration

    @property
    def limited(self) -> bool:
        """Whether the generator was the limit of either, so that neither says anything of the servers."""
        return self.report.limited or self.calibration.limited


class Figure(NamedTuple):
    """One figure.

    Attributes:
        scenario: Where it comes from.
        name: What it is.
        unit: Of ``read``.
        read: As it was measured.
        bare: The bare route's in the same unit, by which it is divided.
        better: Whether less or more of it is.
    """

    scenario: str
    name: str
    unit: str
    read: Callable[[Report], float]
    bare: Callable[[Calibration], float]
    better: Better

    @property
    def key(self) -> str:
        """Its name in the report."""
        return f"{self.scenario} {self.name}"

    def ratio(self, measured: Measured) -> float:
        """In units of the bare route."""
        return self.read(measured.report) / self.bare(measured.calibration)


def _p50(scenario: str) -> Figure:
    return Figure(scenario, "p50", "ms", lambda r: r.latency.at(0.5), lambda c: c.latency.at(0.5), "less")


def _p99(scenario: str) -> Figure:
    return Figure(scenario, "p99", "ms", lambda r: r.latency.at(0.99), lambda c: c.latency.at(0.99), "less")


def _cpu(scenario: str) -> Figure:
    return Figure(scenario, "CPU a request", "ms", lambda r: r.figures["cpu_ms"], lambda c: c.cpu_ms, "less")


def _own(
    scenario: str, name: str, unit: str, field: str, bare: Callable[[Calibration], float], better: Better
) -> Figure:
    """A figure that its scenario alone can tell."""
    return Figure(scenario, name, unit, lambda r: r.figures[field], bare, better)


def _one(_: Calibration) -> float:
    """For what is a share already."""
    return 1.0


FIGURES: tuple[Figure, ...] = (
    *(make(scenario) for scenario in ("predict", "feedback", "mixed", "zipf", "cold") for make in (_p50, _p99, _cpu)),
    _p50("upload"),
    _p99("upload"),
    _own("upload", "rows", "per s", "rows_per_second", lambda c: c.per_second, "more"),
    _own("upload", "CPU a row", "µs", "cpu_us_row", lambda c: c.cpu_ms * 1e3, "less"),
    _own("overload", "peak", "per s", "peak_per_second", lambda c: c.per_second, "more"),
    _own("overload", "learned of the peak", "", "goodput_share", _one, "more"),
    _own("overload", "health p99", "ms", "health_p99_ms", lambda c: c.latency.at(0.99), "less"),
)


def ratios(figure: Figure, turns: Sequence[Measured]) -> list[float]:
    """The figure in every turn of its scenario in which the generator was not the limit."""
    return [figure.ratio(turn) for turn in turns if not turn.limited]
