"""Latencies as counts in buckets that grow with the value, so that every quantile is known to three digits.

The layout is that of Gil Tene's HdrHistogram: powers of two, each divided evenly.
"""

from collections.abc import Iterable, Mapping

import numpy as np

SUB_BUCKETS = 1_024
"""Even parts of a power of two: a value is known to within 1/1,024 of itself."""
HIGHEST_US = 2**36
"""Larger values, some 19 hours, count as this."""


class Histogram:
    """Counts of durations in microseconds."""

    def __init__(self) -> None:
        self._counts = np.zeros(_bucket(HIGHEST_US) + 1, dtype=np.int64)

    def record(self, seconds: float) -> None:
        """Count one duration."""
        self._counts[_bucket(min(max(round(seconds * 1e6), 0), HIGHEST_US))] += 1

    def count(self, buckets: Mapping[int, int]) -> None:
        """Count several durations, by their buckets."""
        for bucket, count in buckets.items():
            self._counts[bucket] += count

    def __len__(self) -> int:
        return int(self._counts.sum())

    def at(self, share: float) -> float:
        """The duration, in milliseconds, that ``share`` of all do not exceed; NaN where there is none."""
        total = len(self)
        if not total:
            return float("nan")
        rank = max(int(np.ceil(share * total)), 1)
        return _middle(int(np.searchsorted(self._counts.cumsum(), rank))) / 1e3

    def add(self, other: "Histogram") -> None:
        """Count what another has counted, too."""
        self.count({int(bucket): int(other._counts[bucket]) for bucket in np.flatnonzero(other._counts)})  # noqa: SLF001 - another of its kind

    def as_json(self) -> dict[str, int]:
        """Counts by the lower end of their bucket in microseconds; those of none are left out."""
        return {str(_lower(int(bucket))): int(self._counts[bucket]) for bucket in np.flatnonzero(self._counts)}

    @classmethod
    def from_json(cls, counts: Mapping[str, int]) -> "Histogram":
        """The inverse of ``as_json``."""
        made = cls()
        made.count({_bucket(int(value)): count for value, count in counts.items()})
        return made

    @classmethod
    def of(cls, seconds: Iterable[float]) -> "Histogram":
        """Of some durations."""
        made = cls()
        for value in seconds:
            made.record(value)
        return made


def _bucket(value: int) -> int:
    """Up to twice ``SUB_BUCKETS`` each value has its own; beyond, each power of two has ``SUB_BUCKETS``."""
    shift = max(value.bit_length() - SUB_BUCKETS.bit_length(), 0)
    return shift * SUB_BUCKETS + (value >> shift)


def _lower(bucket: int) -> int:
    """The least value of a bucket."""
    shift = max(bucket // SUB_BUCKETS - 1, 0)
    return (bucket - shift * SUB_BUCKETS) << shift


def _middle(bucket: int) -> float:
    return (_lower(bucket) + _lower(bucket + 1) - 1) / 2
