"""The sinusoid benchmark's figures as JSON values, and those as Markdown."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from loadtest.fewshot import machine
from loadtest.sinusoid_methods import SHOTS, Method
from models import Tensors

UNITS = {"shots": "labelled points", "steps": f"gradient steps on {SHOTS} points"}
"""What columns count."""


@dataclass
class Figures:
    """What was measured of a method, an entry a seed."""

    method: Method
    errors: dict[str, dict[int, list[Tensor]]] = field(default_factory=lambda: {unit: {} for unit in UNITS})
    cpu_seconds: list[float] = field(default_factory=list)
    finite: list[bool] = field(default_factory=list)
    metas: list[Tensors] = field(default_factory=list)

    def add(self, errors: Mapping[str, Mapping[int, Tensor]]) -> None:
        """Take in a seed's squared errors, (tasks,) by unit and column."""
        for unit, columns in errors.items():
            for column, error in columns.items():
                self.errors[unit].setdefault(column, []).append(error)


def missed(figures: Figures) -> list[str]:
    """Targets that were not reached, as sentences."""
    method = figures.method
    sentences = [
        f"{method.title}: {_mean(figures.errors[unit][column]):.3f} at {column} {UNITS[unit]}, target {target}"
        for unit, targets in (("shots", method.targets), ("steps", method.step_targets))
        for column, target in targets.items()
        if not _mean(figures.errors[unit][column]) <= target  # NaN misses
    ]
    return sentences if all(figures.finite) else [*sentences, f"{method.title}: not finite after very many steps"]


def entry(figures: Figures, share: float, date: str) -> dict[str, Any]:
    """A method's figures as JSON values."""
    method = figures.method
    return {
        "title": method.title,
        "learner": method.learner,
        "date": date,
        "machine": machine(),
        "hyper_parameters": dict(method.hyper_parameters),
        "training": {**method.training, "tasks": method.source.tasks, "support": method.source.support},
        "share_of_iterations": share,
        "mse": {
            unit: {
                str(column): {
                    "mean": _mean(errors),
                    "interval_95": _interval(errors),
                    "seeds": [float(error.mean()) for error in errors],
                }
                for column, errors in columns.items()
            }
            for unit, columns in figures.errors.items()
        },
        "targets": {"shots": _named(method.targets), "steps": _named(method.step_targets)},
        "cited": _named(method.cited),
        "missed": missed(figures),
        "finite": all(figures.finite),
        "cpu_seconds": figures.cpu_seconds,
    }


def table(entries: Sequence[Mapping[str, Any]]) -> str:
    """The figures as Markdown: by labelled points with the cited ones, then by gradient steps."""
    return "\n".join([*_by_shots(entries), "", *_by_steps(entries)])


def cells(entry: Mapping[str, Any], unit: str, columns: Sequence[str]) -> list[str]:
    """Mean ± interval of each column; empty where nothing was measured."""
    found = entry["mse"][unit]
    return [
        f"{found[column]['mean']:.3f} ± {found[column]['interval_95']:.3f}" if column in found else ""
        for column in columns
    ]


def _by_shots(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    columns = ["5", "10", "20"]
    lines = [
        f"| MSE after … {UNITS['shots']} | {' | '.join(columns)} | cited at 5 / 10 / 20 | CPU s a seed |",
        f"| --- |{' ---: |' * (len(columns) + 2)}",
    ]
    for found in entries:
        cited = " / ".join(str(found["cited"].get(column, "–")) for column in columns) if found["cited"] else "–"
        seconds = sum(found["cpu_seconds"]) / len(found["cpu_seconds"])
        lines.append(f"| {found['title']} | {' | '.join(cells(found, 'shots', columns))} | {cited} | {seconds:.0f} |")
    return lines


def _by_steps(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [found for found in entries if found["mse"]["steps"]]
    if not rows:
        return []
    columns = list(rows[0]["mse"]["steps"])
    return [
        f"| MSE after … {UNITS['steps']} | {' | '.join(columns)} |",
        f"| --- |{' ---: |' * len(columns)}",
        *(f"| {found['title']} | {' | '.join(cells(found, 'steps', columns))} |" for found in rows),
    ]


def _mean(errors: Sequence[Tensor]) -> float:
    """Mean squared error over tasks and seeds."""
    return float(torch.stack(list(errors)).mean())


def _interval(errors: Sequence[Tensor]) -> float:
    """Half width of the 95% interval over the tasks, of the mean over the seeds."""
    by_task = torch.stack(list(errors)).mean(0)
    return float(1.96 * by_task.std() / math.sqrt(len(by_task)))


def _named(values: Mapping[int, float]) -> dict[str, float]:
    return {str(column): value for column, value in values.items()}
