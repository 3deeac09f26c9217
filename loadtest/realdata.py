"""Real drifting streams: train with defaults, run test-then-train row by row, print everything side by side.

``python -m loadtest.realdata --data DIR``. The folder holds one ``NAME.csv.gz`` a data set (columns ``stream``, ``t``,
features, ``label``), ``client_splits.json`` (which streams to meta-train on, where there are several) and, for the best
peer, ``peers.json`` (other systems' scores on the same rows). One stream: trained on the first 30% of its rows, scored
on the rest. Several: trained on the meta-train streams, scored on the others.
"""

import argparse
import json
import platform
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from models import (
    Evaluation,
    Model,
    Table,
    TrainProgress,
    TrainSettings,
    evaluate,
    keep_freed_memory,
    read_bundle,
    read_table,
    rows_mask,
    streams_mask,
    train_table,
    use_threads,
    write_bundle,
)

CASES = (
    ("elec2", 0),
    ("elec2", 100),
    ("bike_hourly", 0),
    ("bike_hourly", 100),
    ("air_quality_uci", 0),
    ("gas_drift", 0),
    ("watch_shoulder", 0),
    ("beijing_pm25", 12),
)
"""Data sets and label delays, in rows of the file."""


class Case(NamedTuple):
    """One data set at one label delay."""

    name: str
    delay: int


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the cases and print one table."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.realdata", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    parser.add_argument("--only", nargs="*", default=[], help="cases as NAME or NAME:DELAY; all by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--budget", type=float, default=5.0, help="minutes to train, each")
    parser.add_argument("--models", type=Path, default=None, help="folder to keep bundles in, and to take them from")
    parser.add_argument("--json", type=Path, default=None, help="file for all figures")
    given = parser.parse_args(arguments)
    use_threads(1)
    keep_freed_memory()
    cases = [Case(*case) for case in CASES if not given.only or {case[0], f"{case[0]}:{case[1]}"} & set(given.only)]
    results = []
    for case in cases:
        results.append(run(case, given.data, given.seed, given.budget, given.models))
        print(line(results[-1]), flush=True)
    print(f"\n{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, Python {platform.python_version()}, one thread")
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def run(case: Case, folder: Path, seed: int, budget_minutes: float, bundles: Path | None) -> dict[str, Any]:
    """Train, evaluate, and set the figures beside the best peer's."""
    file = folder / f"{case.name}.csv.gz"
    table = read_table([file], target="label", stream_column="stream", time_column="t")
    splits = json.loads((folder / "client_splits.json").read_text("utf-8"))
    if case.name in splits:
        learn = streams_mask(table, splits[case.name]["meta_train"])
        scored = streams_mask(table, splits[case.name]["meta_test"])
    else:
        learn, scored = rows_mask(table, "0:0.3"), rows_mask(table, "0.3:")
    kept = None if bundles is None else bundles / f"{case.name}.{case.delay}.{seed}.safetensors"
    began = time.process_time()
    if kept is not None and kept.exists():
        model = read_bundle(kept)
    else:
        model = _train(table.take(learn), case, seed, budget_minutes)
        if kept is not None:
            kept.write_bytes(write_bundle(model))
    train_seconds = time.process_time() - began
    evaluation = evaluate(model, table, delay=case.delay, scored=scored, compare=True, seed=seed)
    return {
        "data": case.name,
        "delay": case.delay,
        "seed": seed,
        "train_cpu_seconds": train_seconds,
        "choices": list(model.spec.provenance.get("choices", ())),
        "runs": _figures(evaluation),
        "best_peer": _best_peer(folder / "peers.json", case, table),
    }


def _train(table: Table, case: Case, seed: int, budget_minutes: float) -> Model:
    def silent(progress: TrainProgress) -> None:
        del progress

    settings = TrainSettings(delay=case.delay, seed=seed, budget_minutes=budget_minutes)
    return train_table(table, settings, silent)[0]


def _figures(evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    return {run.name: scores.as_dict() for run, scores in zip(evaluation.runs, evaluation.scores, strict=True)}


def _best_peer(file: Path, case: Case, table: Table) -> dict[str, Any] | None:
    """The best online peer on these rows: greatest accuracy or least mean absolute error."""
    if not file.exists():
        return None
    peers = json.loads(file.read_text("utf-8"))[case.name]["delays"].get(str(case.delay), {})
    metric, best = ("accuracy", max) if table.task == "classification" else ("mae", min)
    scores = {name: figures[metric] for name, figures in peers.items() if metric in figures}
    if not scores:
        return None
    name = best(scores, key=lambda each: scores[each])
    return {"name": name, "score": scores[name]}


def line(result: dict[str, Any]) -> str:
    """One case as a line of text."""
    scores = "  ".join(f"{name} {figures['score']:.4g}" for name, figures in result["runs"].items())
    peer = result["best_peer"]
    rival = f"  best peer {peer['score']:.4g} ({peer['name']})" if peer else ""
    return f"{result['data']} delay {result['delay']}: {scores}{rival}  [train {result['train_cpu_seconds']:.0f} CPU s]"


if __name__ == "__main__":
    main()
