"""What the server has acknowledged, and what that obliges it to."""

from dataclasses import dataclass, field
from typing import Any

from loadtest.crash.workload import Operation

TOLERANCE = 1e-5
"""Greatest relative difference of predictions, as the contract has it; against the spread where a value is near 0."""
EXACT = ("stream_version", "rows_seen", "state", "window_rows", "model_version")
EVENT = ("revision", "kind", "detector", "change_row", "action", "rows_used")


@dataclass
class History:
    """One stream as its client knows it.

    Attributes:
        done: Operations that are committed for sure, in their order.
        pending: The operation whose answer did not come.
        version: Greatest ``stream_version`` ever acknowledged or read.
    """

    done: list[Operation] = field(default_factory=list)
    pending: Operation | None = None
    version: int = 0

    @property
    def rows(self) -> int:
        """Rows that were acknowledged."""
        return sum(operation.rows for operation in self.done)

    def acknowledge(self, operation: Operation, answer: dict[str, Any]) -> list[str]:
        """Take an answer of the server; what is wrong with it."""
        self.pending = None
        self.done.append(operation)
        expected = len(self.done)
        self.version = max(self.version, int(answer["stream_version"]))
        wrong = []
        if answer["stream_version"] != expected:
            wrong.append(f"operation {operation.number}: revision {answer['stream_version']} instead of {expected}")
        if answer["rows_seen"] != self.rows:
            wrong.append(f"operation {operation.number}: {answer['rows_seen']} rows instead of {self.rows}")
        return wrong

    def recover(self, found: dict[str, Any]) -> list[str]:
        """Compare with the stream after a restart; what is wrong with it.

        Everything acknowledged must be there; the operation without an answer may be there or not, but wholly.
        """
        version = int(found["stream_version"])
        if version < self.version or version < len(self.done):
            return [f"revision {version} after the restart, {max(self.version, len(self.done))} was seen before"]
        pending = self.pending
        if pending is not None and version == len(self.done) + 1:
            self.done.append(pending)
            if pending.body is None:
                self.pending = None
        elif version != len(self.done):
            return [f"revision {version} after the restart, {len(self.done)} operations were acknowledged"]
        if found["rows_seen"] != self.rows:
            return [f"{found['rows_seen']} rows after the restart, {self.rows} belong to revision {version}"]
        return []


def differences(found: dict[str, Any], expected: dict[str, Any]) -> tuple[list[str], float]:
    """Compare a stream's end with that of the run that was never killed.

    Args:
        found: ``info``, ``events`` and ``predicted`` of the stream.
        expected: The same of the other run.

    Returns:
        What differs, and the greatest relative difference of the predictions.
    """
    wrong = [
        f"{name} is {found['info'][name]}, {expected['info'][name]} without crashes"
        for name in EXACT
        if found["info"][name] != expected["info"][name]
    ]
    events = [[tuple(event[name] for name in EVENT) for event in side["events"]] for side in (found, expected)]
    if events[0] != events[1]:
        wrong.append(f"{len(events[0])} events, {len(events[1])} without crashes, or they differ: {_first(*events)}")
    worst = max(
        _distance(found["predicted"].get(name), expected["predicted"].get(name), scales)
        for name, scales in (("predictions", expected["predicted"].get("std")), ("probabilities", None))
    )
    if worst > TOLERANCE:
        wrong.append(f"predictions differ by {worst:.2g} of their size")
    return wrong, worst


def _first(left: list[Any], right: list[Any]) -> str:
    pairs = [(a, b) for a, b in zip(left, right, strict=False) if a != b]
    return str(pairs[0]) if pairs else "one is longer"


def _distance(left: Any, right: Any, scales: Any) -> float:
    """Greatest difference of numbers in two nested lists, relative to their size or the spread; 1 for other things."""
    if left is None and right is None:
        return 0.0
    if isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        spreads = scales if isinstance(scales, list) else [None] * len(left)
        return max((_distance(*each) for each in zip(left, right, spreads, strict=True)), default=0.0)
    if isinstance(left, float) and isinstance(right, float):
        size = max(abs(left), abs(right), scales if isinstance(scales, float) else 0.0)
        return abs(left - right) / size if size else 0.0
    return 0.0 if left == right else 1.0
