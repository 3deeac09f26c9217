"""The report of a run as JSON, and the figures and histograms of an earlier one."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from loadtest.bench.figures import FIGURES, Measured, ratios
from loadtest.bench.picture import BARE
from loadtest.histogram import Histogram
from loadtest.machine import machine
from loadtest.options import Options

FORMAT = 1


class DocumentError(Exception):
    """A file that is no report of this format; one sentence."""


class Document(NamedTuple):
    """What one run is compared by.

    Attributes:
        options: How it was measured.
        machine: Where.
        figures: In units of the bare route, one value for each turn that counts.
        histograms: Latencies of all turns that count together, by scenario and of the bare route.
    """

    options: dict[str, Any]
    machine: dict[str, Any]
    figures: dict[str, list[float]]
    histograms: dict[str, Histogram]


def document(options: Options, turns: Mapping[str, Sequence[Measured]]) -> Document:
    """The run's turns by scenario, put together."""
    counted = {name: [turn for turn in each if not turn.limited] for name, each in turns.items()}
    histograms = {BARE: _together([turn.calibration.latency for each in counted.values() for turn in each])}
    histograms |= {name: _together([turn.report.latency for turn in each]) for name, each in counted.items()}
    figures = {figure.key: ratios(figure, turns[figure.scenario]) for figure in FIGURES if figure.scenario in turns}
    return Document(asdict(options), machine(), figures, histograms)


def write(path: Path, made: Document, turns: Mapping[str, Sequence[Measured]]) -> None:
    """Write a report: what it is compared by, and every turn's percentiles, outcomes and limits."""
    plain = {
        "format": FORMAT,
        "command": "python -m loadtest.bench",
        "options": made.options,
        "machine": made.machine,
        "figures": made.figures,
        "turns": {name: [_turn(turn) for turn in each] for name, each in turns.items()},
        "histograms": {name: histogram.as_json() for name, histogram in made.histograms.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(plain, option=orjson.OPT_APPEND_NEWLINE))


def read(path: Path) -> Document:
    """What ``write`` wrote.

    Raises:
        DocumentError: There is none, or it is of another format.
    """
    try:
        plain = orjson.loads(path.read_bytes())
        if plain["format"] != FORMAT:
            raise DocumentError(f"{path} has format {plain['format']}, not {FORMAT}: measure anew")
        histograms = {name: Histogram.from_json(counts) for name, counts in plain["histograms"].items()}
        return Document(plain["options"], plain["machine"], plain["figures"], histograms)
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise DocumentError(f"{path} cannot be read as a report ({type(error).__name__})") from error


def _turn(turn: Measured) -> dict[str, Any]:
    report = turn.report.as_json()
    del report["histogram"]  # all turns' together are kept
    return report | {"bare": turn.calibration.as_json()}


def _together(histograms: Sequence[Histogram]) -> Histogram:
    total = Histogram()
    for histogram in histograms:
        total.add(histogram)
    return total
