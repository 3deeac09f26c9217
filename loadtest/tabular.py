"""The network for tables against gradient boosting, both offline: random fifths of the rows that training sees.

``python -m loadtest.tabular --data DIR``; the folder is that of ``loadtest.realdata``. Of each data set the rows to
train on are split at random into four fifths and one, several times; a network and scikit-learn's gradient boosting
with its defaults are fitted on the four and judged on the fifth.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from loadtest.realdata import CASES, Case, columns_of, parts_of
from models import Table, Tabular, fit_network, network_scores, read_table, use_threads
from service.allocator import keep_freed_memory

TARGET = 1.05
"""Error of the network at most, in units of boosting's."""
PREFIX = "network."
COLUMNS = ("data", "rows", "metric", "boosting", "network", "network ÷ boosting", "CPU s")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, write the figures; exit code 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.tabular", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    parser.add_argument("--only", nargs="*", default=[], help="data sets; all by default")
    parser.add_argument("--fifths", type=int, default=3, help="random fifths of each (default: %(default)d)")
    parser.add_argument("--json", type=Path, default=Path("build/tabular.json"), help="file for all figures")
    given = parser.parse_args(arguments)
    use_threads(1)
    keep_freed_memory()
    names = [name for name in dict.fromkeys(name for name, _ in CASES) if not given.only or name in given.only]
    results = []
    print("| " + " | ".join(COLUMNS) + " |\n| --- | ---: | --- | ---: | ---: | ---: | ---: |")
    for name in names:
        results.append(run(name, given.data, given.fifths))
        print(line(results[-1]), flush=True)
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    missed = [result["data"] for result in results if result["ratio"] > TARGET]
    if missed:
        raise SystemExit(f"over {TARGET:g} times boosting's error: {', '.join(missed)}")


def run(name: str, folder: Path, fifths: int) -> dict[str, Any]:
    """Errors of both on each random fifth of a data set's training rows, and the ratio of their means."""
    table = read_table([folder / f"{name}.csv.gz"], target="label", stream_column="stream", time_column="t")
    learn, _ = parts_of(table, Case(name, 0), folder, None)
    table = table.take(learn)
    x, y = columns_of(table)
    if table.task == "classification":
        y = np.unique(y, return_inverse=True)[1]
    found: dict[str, list[float]] = {"boosting": [], "network": []}
    cpu_s = 0.0
    for seed in range(fifths):
        order = np.random.default_rng(seed).permutation(len(x))
        judged, fitted = np.sort(order[: len(x) // 5]), np.sort(order[len(x) // 5 :])
        found["boosting"].append(_error(_boosted(table, x[fitted], y[fitted], x[judged]), y[judged], table))
        began = time.process_time()
        found["network"].append(_error(_network(table, x[fitted], y[fitted], x[judged], seed), y[judged], table))
        cpu_s += (time.process_time() - began) / fifths
    means = {kind: float(np.mean(errors)) for kind, errors in found.items()}
    metric = "share wrong" if table.task == "classification" else "MAE"
    one_wrong = 5 / (fifths * len(x)) if table.task == "classification" else 0.0
    ratio = means["network"] / max(means["boosting"], one_wrong)  # nobody is better than all right
    return {"data": name, "rows": len(x), "metric": metric, **means, "ratio": ratio, "cpu_s": cpu_s, "fifths": found}


def line(result: dict[str, Any]) -> str:
    """One data set as a row of the table."""
    errors = f"{result['boosting']:.4g} | {result['network']:.4g} | {result['ratio']:.2f} | {result['cpu_s']:.0f}"
    return f"| {result['data']} | {result['rows']:,} | {result['metric']} | {errors} |"


def _boosted(table: Table, x: Any, y: Any, asked: Any) -> Any:
    from sklearn import ensemble  # type: ignore[import-untyped]  # noqa: PLC0415 - an optional extra

    classes = table.task == "classification"
    kind = ensemble.HistGradientBoostingClassifier if classes else ensemble.HistGradientBoostingRegressor
    return kind(random_state=0).fit(x, y).predict(asked)


def _network(table: Table, x: Any, y: Any, asked: Any, seed: int) -> Any:
    classes = len(np.unique(y)) if table.task == "classification" else 0
    tensors = fit_network(Tabular(table.task, classes=classes, seed=seed), x, y, PREFIX)
    scores = network_scores(tensors, torch.from_numpy(asked.astype(np.float32)), PREFIX).numpy()
    return scores.argmax(1) if classes else scores[:, 0]


def _error(said: Any, truth: Any, table: Table) -> float:
    return float((said != truth).mean() if table.task == "classification" else np.abs(said - truth).mean())


if __name__ == "__main__":
    main()
