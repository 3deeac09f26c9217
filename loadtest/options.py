"""How load is put on a server: what the commands of this package ask, and how they read it."""

import argparse
import math
from collections.abc import Callable, Container
from dataclasses import dataclass

IN_FLIGHT_MAX = 900
"""``select`` takes file descriptors below 1,024."""


@dataclass(frozen=True)
class Options:
    """One invocation. Times in seconds, rate in requests per second; see ``--help``."""

    model: str = "sinusoid"
    rate: float = 200.0
    seconds: float = 10.0
    warmup: float = 2.0
    streams: int = 100
    zipf: float = 0.0
    rows: int = 1
    labelled: int = 8
    batch: int = 32
    feedback_share: float = 0.5
    in_flight: int = 256
    timeout: float = 10.0
    seed: int = 0


def add_options(parser: argparse.ArgumentParser, default: Options, *, without: Container[str] = ()) -> None:
    """Give a command the options, with these defaults, but for some."""
    for name, (read, text) in _OPTIONS.items():
        if name in without:
            continue
        word, value = f"--{name.replace('_', '-')}", getattr(default, name)
        parser.add_argument(word, type=read, default=value, help=f"{text} (default: %(default)s)")


def number(low: float, high: float = math.inf) -> Callable[[str], float]:
    """Reads a number in [low, high)."""

    def read(text: str) -> float:
        value = float(text)
        if not low <= value < high:
            raise argparse.ArgumentTypeError(f"{text} is out of bounds: {low:g} <= number < {high:g}")
        return value

    return read


def count(low: int, high: int = 1_000_001) -> Callable[[str], int]:
    """Reads a whole number in [low, high)."""

    def read(text: str) -> int:
        value = int(text)
        if not low <= value < high:
            raise argparse.ArgumentTypeError(f"{text} is out of bounds: {low} <= count < {high}")
        return value

    return read


_OPTIONS: dict[str, tuple[Callable[[str], object], str]] = {
    "model": (str, "model that the streams are bound to"),
    "rate": (number(0.01), "requests per second, constant; of an upload, batches"),
    "seconds": (number(0.01), "length of the measured part"),
    "warmup": (number(0), "seconds before it, not reported"),
    "streams": (count(1), "number of streams"),
    "zipf": (number(0), "exponent of their popularity, 0 uniform"),
    "rows": (count(1), "rows a request"),
    "labelled": (count(0), "rows that a stream learns beforehand"),
    "batch": (count(1), "rows a batch of an upload"),
    "feedback_share": (number(0, math.nextafter(1, 2)), "of the scenarios mixed and zipf"),
    "in_flight": (count(1, IN_FLIGHT_MAX + 1), f"most requests under way at once, up to {IN_FLIGHT_MAX}"),
    "timeout": (number(0.001), "seconds that one request is waited for"),
    "seed": (int, "of streams, rows and popularity"),
}
