"""The Omniglot benchmark's figures as JSON values, and those as Markdown."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from loadtest.fewshot import machine
from loadtest.omniglot_methods import METHODS, Method

BEST_TARGET = 93.0
"""Accuracy at 5 ways and 1 shot that the best method reaches at least, in percent."""
PIXELS = "pixels"
"""The baseline among the entries."""


@dataclass
class Figures:
    """Share of the queries that were right, (tasks,) a seed, by shots."""

    right: dict[int, list[Tensor]] = field(default_factory=dict)
    cpu_seconds: list[float] = field(default_factory=list)

    def add(self, right: Mapping[int, Tensor]) -> None:
        """Take in a seed's."""
        for shots, share in right.items():
            self.right.setdefault(shots, []).append(share)

    def accuracy(self) -> dict[str, Any]:
        """In percent, by shots, as JSON values."""
        return {
            str(shots): {
                "mean": 100.0 * float(torch.stack(found).mean()),
                "interval_95": 196.0 * float(torch.stack(found).mean(0).std()) / math.sqrt(len(found[0])),
                "seeds": [100.0 * float(share.mean()) for share in found],
            }
            for shots, found in self.right.items()
        }


def baseline(figures: Figures) -> dict[str, Any]:
    """The baseline's figures as JSON values."""
    return {"title": "Nearest drawing, pixel by pixel", "accuracy": figures.accuracy(), "cpu_seconds": []}


def entry(method: Method, figures: Figures, share: float, date: str) -> dict[str, Any]:
    """A method's figures as JSON values."""
    return {
        "title": method.title,
        "learner": method.learner,
        "date": date,
        "machine": machine(),
        "hyper_parameters": dict(method.hyper_parameters),
        "episodes": dict(method.episodes),
        "training": dict(method.training),
        "share_of_iterations": share,
        "accuracy": figures.accuracy(),
        "cpu_seconds": figures.cpu_seconds,
    }


def table(entries: Mapping[str, Mapping[str, Any]]) -> str:
    """The figures as Markdown."""
    lines = ["| accuracy, 5 ways, % | 1 shot | 5 shots | iterations | CPU s |", "| --- | ---: | ---: | ---: | ---: |"]
    for found in entries.values():
        cells = [f"{one['mean']:.1f} ± {one['interval_95']:.1f}" for one in found["accuracy"].values()]
        seconds = found["cpu_seconds"]
        spent = f"{found['training']['iterations']:,} | {sum(seconds) / len(seconds):.0f}" if seconds else "– | –"
        lines.append(f"| {found['title']} | {' | '.join(cells)} | {spent} |")
    return "\n".join(lines)


def missed(entries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Targets that were not reached, as sentences; judged once all methods have been measured."""
    if not entries.keys() >= METHODS.keys():
        return []
    scores = {name: entries[name]["accuracy"]["1"]["mean"] for name in METHODS}
    best = max(scores, key=lambda name: scores[name])
    if scores[best] >= BEST_TARGET:
        return []
    return [f"the best, {entries[best]['title']}, has {scores[best]:.1f}% at 1 shot, target {BEST_TARGET}"]
