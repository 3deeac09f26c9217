"""Real drifting streams: train with defaults, run test-then-train row by row, print everything side by side.

``python -m loadtest.realdata --data DIR``. The folder holds one ``NAME.csv.gz`` a data set (columns ``stream``, ``t``,
features, ``label``), ``client_splits.json`` (which streams to meta-train on, where there are several), ``meta.json``
(sizes of the batches whose borders are known changes) and, for the best peer, ``peers.json`` (other systems' scores on
the same rows). One stream: trained on the first 30% of its rows, scored on the rest. Several: trained on the meta-train
streams, scored on the others.
"""

import argparse
import json
import math
import platform
import random
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from models import (
    Evaluation,
    Mask,
    Model,
    Table,
    TrainProgress,
    TrainSettings,
    after_alarms,
    evaluate,
    expected_calibration_error,
    rank_in_stream,
    read_bundle,
    read_table,
    rows_mask,
    streams_mask,
    train_table,
    use_threads,
    write_bundle,
)
from service.allocator import keep_freed_memory

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
FIRST_ROWS = 5
"""Rows of a stream that count as its very first."""
AFTER_CHANGE_ROWS = 100
"""Rows after a known change in which recovery is judged."""
UNCERTAIN_ROWS = 50
"""Rows after an alarm or a known change in which certainty is judged."""
UNCERTAIN_KEYS = ("inside", "confidence", "right")
PEOPLE = 3
"""Letters of a stream's name in watch_shoulder that say who wears the watch; the rest is the arm."""


class Case(NamedTuple):
    """One data set at one label delay."""

    name: str
    delay: int


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the cases and print one table."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.realdata", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    parser.add_argument("--only", nargs="*", default=[], help="cases as NAME or NAME:DELAY; all by default")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds, each with a model of its own")
    parser.add_argument(
        "--splits", type=int, default=0, help="instead: so many random splits of watch_shoulder's people"
    )
    parser.add_argument("--budget", type=float, default=5.0, help="minutes to train, each")
    parser.add_argument("--models", type=Path, default=None, help="folder to keep bundles in, and to take them from")
    parser.add_argument("--json", type=Path, default=None, help="file for all figures")
    given = parser.parse_args(arguments)
    use_threads(1)
    keep_freed_memory()
    cases = [Case(*case) for case in CASES if not given.only or {case[0], f"{case[0]}:{case[1]}"} & set(given.only)]
    tried: list[tuple[Case, int, int | None]]
    if given.splits:
        tried = [(Case("watch_shoulder", 0), given.seed, split) for split in range(given.splits)]
    else:
        tried = [(case, given.seed + more, None) for case in cases for more in range(given.seeds)]
    results = []
    for case, seed, split in tried:
        results.append(run(case, given.data, seed, given.budget, given.models, split))
        print(line(results[-1]), flush=True)
    print(f"\n{_all_certainty(results)}")
    print(f"\n{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, Python {platform.python_version()}, one thread")
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def run(
    case: Case, folder: Path, seed: int, budget_minutes: float, bundles: Path | None, split: int | None = None
) -> dict[str, Any]:
    """Train, evaluate, and set the figures beside the best peer's and those of boosted trees that learn no more."""
    file = folder / f"{case.name}.csv.gz"
    table = read_table([file], target="label", stream_column="stream", time_column="t")
    learn, scored = parts_of(table, case, folder, split)
    name = f"{case.name}.{case.delay}.{seed}" + ("" if split is None else f".split{split}")
    kept = None if bundles is None else bundles / f"{name}.safetensors"
    began = time.process_time()
    if kept is not None and kept.exists():
        model = read_bundle(kept)
    else:
        model = _train(table.take(learn), case, seed, budget_minutes)
        if kept is not None:
            kept.write_bytes(write_bundle(model))
    train_seconds = time.process_time() - began
    evaluation = evaluate(model, table, delay=case.delay, scored=scored, compare=True, members=True, seed=seed)
    return {
        "data": case.name,
        "delay": case.delay,
        "seed": seed,
        "split": split,
        "train_cpu_seconds": train_seconds,
        "choices": list(model.spec.provenance.get("choices", ())),
        "runs": _figures(evaluation),
        "after_alarms": [scores.as_dict() for scores in evaluation.after_alarms],
        "members": {each.name: float(each.score[scored].mean()) for each in evaluation.report.members},
        "first_rows": _pooled(evaluation, scored & (rank_in_stream(table) < FIRST_ROWS)),
        "after_changes": _pooled(evaluation, scored & _after_changes(table, case, folder, AFTER_CHANGE_ROWS)),
        "uncertain": _certainty(evaluation, scored, _after_changes(table, case, folder, UNCERTAIN_ROWS)),
        "boosting_frozen": _boosting(table, learn, scored),
        "best_peer": None if split is not None else _best_peer(folder / "peers.json", case, table),
    }


def parts_of(table: Table, case: Case, folder: Path, split: int | None) -> tuple[Mask, Mask]:
    """Rows to train on and rows to score."""
    splits = json.loads((folder / "client_splits.json").read_text("utf-8"))
    if split is not None:
        people = sorted({name[:PEOPLE] for name in table.stream_names})
        unseen = random.Random(split).sample(people, 2 * len(people) // 5)  # noqa: S311 - no secret
        others = [name for name in table.stream_names if name[:PEOPLE] not in unseen]
        return streams_mask(table, others), ~streams_mask(table, others)
    if case.name in splits:
        return streams_mask(table, splits[case.name]["meta_train"]), streams_mask(table, splits[case.name]["meta_test"])
    return rows_mask(table, "0:0.3"), rows_mask(table, "0.3:")


def _after_changes(table: Table, case: Case, folder: Path, count: int) -> Mask:
    """(rows,) so many rows after each known change, where the folder's notes know of any."""
    sizes = json.loads((folder / "meta.json").read_text("utf-8")).get(case.name, {}).get("batch_sizes", {})
    rows = np.zeros(table.rows, dtype=np.bool_)
    for border in np.cumsum([int(size) for size in sizes.values()])[:-1]:
        rows[border : border + count] = True
    return rows


def _pooled(evaluation: Evaluation, rows: Mask) -> dict[str, float]:
    """Mean score of each run over some rows; empty where there are none."""
    return {run.name: float(run.score[rows].mean()) for run in evaluation.runs} if rows.any() else {}


def _certainty(evaluation: Evaluation, scored: Mask, changes: Mask) -> dict[str, list[float]]:
    """What the adapted streams stated, and what came, in the rows after alarms and known changes: one entry a row."""
    adapted, table = evaluation.report.adapted, evaluation.report.table
    rows = scored & (changes | after_alarms(table, adapted.alarms or (), UNCERTAIN_ROWS))
    if adapted.inside is not None:
        return {"inside": adapted.inside[rows].tolist()}
    if adapted.confidence is None:
        return {}
    return {"confidence": adapted.confidence[rows].round(4).tolist(), "right": adapted.score[rows].tolist()}


def _all_certainty(results: Sequence[Mapping[str, Any]]) -> str:
    """Certainty after alarms and known changes, all results pooled."""
    pooled = {key: [v for result in results for v in result["uncertain"].get(key, ())] for key in UNCERTAIN_KEYS}
    words = []
    if pooled["inside"]:
        words.append(f"{np.mean(pooled['inside']):.1%} of {len(pooled['inside'])} labels in their 90% intervals")
    if pooled["confidence"]:
        error = expected_calibration_error(np.array(pooled["confidence"]), np.array(pooled["right"]))
        words.append(f"calibration error {error:.3f} of {len(pooled['right'])} classes")
    return f"in the {UNCERTAIN_ROWS} rows after alarms and known changes: " + (", ".join(words) or "no rows")


def _boosting(table: Table, learn: Mask, scored: Mask) -> float | None:
    """Score of scikit-learn's gradient boosting with its defaults, fitted once on the rows to learn from."""
    try:
        from sklearn import ensemble  # type: ignore[import-untyped]  # noqa: PLC0415 - an optional extra
    except ImportError:
        return None
    x, y = columns_of(table)
    if table.task == "classification":
        right = ensemble.HistGradientBoostingClassifier(random_state=0).fit(x[learn], y[learn]).predict(x[scored])
        return float((right == y[scored]).mean())
    said = ensemble.HistGradientBoostingRegressor(random_state=0).fit(x[learn], y[learn]).predict(x[scored])
    return float(np.abs(said - y[scored]).mean())


def columns_of(table: Table) -> tuple[npt.NDArray[np.float64], npt.NDArray[Any]]:
    """Inputs (rows, D) of a table of numbers, and its labels as text or as numbers."""
    x = np.array([[math.nan if value is None else value for value in row] for row in table.values()], dtype=np.float64)
    if table.task == "classification":
        return x, np.array([str(label) for label in table.target])
    return x, np.asarray(table.target, dtype=np.float64)


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
    place = f" split {result['split']}" if result["split"] is not None else ""
    peer = result["best_peer"]
    rival = f"  best peer {peer['score']:.4g} ({peer['name']})" if peer else ""
    own = result["runs"]["adapted"]
    certain = "ece" if own["coverage"] is None else "coverage"
    parts = [
        f"{words} {result[key]['adapted']:.4g}"
        for key, words in (("first_rows", "first rows"), ("after_changes", "after changes"))
        if result[key]
    ]
    more = [f"first 20 {own['first20']:.4g}"] if own["first20"] is not None else []
    boosting = [] if result["boosting_frozen"] is None else [f"boosting {result['boosting_frozen']:.4g}"]
    alone = max if own["coverage"] is None else min
    best = [f"best member {alone(result['members'].values()):.4g}"]
    details = ", ".join([*best, *boosting, f"{certain} {own[certain]:.3g}", f"{own['alarms']} alarms", *more, *parts])
    head = f"{result['data']} delay {result['delay']} seed {result['seed']}{place}"
    return f"{head}: {scores}{rival}; {details}  [train {result['train_cpu_seconds']:.0f} CPU s]"


if __name__ == "__main__":
    main()
