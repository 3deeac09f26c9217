"""What a server holds while it runs: samples of it, and whether they grow."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from loadtest.server import Server

WARM_SHARE = 1 / 3
"""Of a run: until then caches fill, and nothing is concluded."""
BOUNDS = {"resident_mb": 0.25, "descriptors": 0.2, "threads": 0.02}
"""Most that each may grow, per minute after the warm-up."""
MINUTES_MIN = 5.0
"""A shorter run tells nothing of slopes: one page of a cache that fills late looks steep."""


class Sample(NamedTuple):
    """What a server's processes hold, all together, some seconds after the beginning."""

    seconds: float
    resident_mb: float
    descriptors: int
    threads: int


@dataclass(frozen=True)
class Slope:
    """How something went after the warm-up.

    Attributes:
        name: Which field of a sample.
        first: Mean of the first tenth of the samples.
        last: Mean of the last tenth.
        per_minute: Median of the slopes between all pairs of samples (Theil and Sen): a peak or two do not move it.
        bound: Most that it may be.
    """

    name: str
    first: float
    last: float
    per_minute: float
    bound: float

    @property
    def kept(self) -> bool:
        """Whether it is flat."""
        return self.per_minute <= self.bound

    def as_json(self) -> dict[str, Any]:
        """All figures."""
        return {**asdict(self), "kept": self.kept}


def look(server: Server, seconds: float) -> Sample:
    """What the server holds now."""
    pids = server.processes()
    descriptors = sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)  # noqa: PTH208 - no paths are wanted
    threads = sum(len(os.listdir(f"/proc/{pid}/task")) for pid in pids)  # noqa: PTH208
    return Sample(seconds, server.resident_bytes() / 2**20, descriptors, threads)


def after_warm_up(samples: Sequence[Sample]) -> list[Sample]:
    """Those that count."""
    end = samples[-1].seconds
    return [sample for sample in samples if sample.seconds >= WARM_SHARE * end]


def slopes(samples: Sequence[Sample]) -> list[Slope]:
    """How each figure went after the warm-up; needs two samples there at least.

    Example:
        >>> flat = [Sample(60.0 * minute, 300.0, 40 + minute % 2, 12) for minute in range(30)]
        >>> [slope.kept for slope in slopes(flat)]
        [True, True, True]
        >>> leak = [sample._replace(threads=12 + place // 10) for place, sample in enumerate(flat)]
        >>> [slope.name for slope in slopes(leak) if not slope.kept]
        ['threads']
    """
    counted = after_warm_up(samples)
    minutes = np.array([sample.seconds for sample in counted]) / 60.0
    later, earlier = np.triu_indices(len(counted), 1)[::-1]
    tenth = max(len(counted) // 10, 1)
    found = []
    for name, bound in BOUNDS.items():
        values = np.array([getattr(sample, name) for sample in counted], dtype=float)
        steps = (values[later] - values[earlier]) / (minutes[later] - minutes[earlier])
        found.append(
            Slope(name, float(values[:tenth].mean()), float(values[-tenth:].mean()), float(np.median(steps)), bound)
        )
    return found


def lines(found: Sequence[Slope]) -> list[str]:
    """The table."""
    return [
        "| | after the warm-up | at the end | per minute | bound |",
        "| --- | ---: | ---: | ---: | ---: |",
        *(
            f"| {slope.name.replace('_', ' ')} | {slope.first:,.1f} | {slope.last:,.1f} | {slope.per_minute:+.3f} | "
            f"{slope.bound:g} |"
            for slope in found
        ),
    ]
