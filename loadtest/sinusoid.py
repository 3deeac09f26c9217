"""The few-shot sinusoid benchmark of the MAML paper, for every learner that it suits: ``python -m loadtest.sinusoid``.

Each method is meta-trained from scratch with several seeds, then adapted to 2,000 tasks it has never seen. Prints a
table, writes the figures as JSON and draws one task before and after adaptation. Exit code 1 if a target is missed.
"""

import argparse
import json
import math
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from loadtest.sinusoid_plot import Panel, draw
from models import (
    LEARNERS,
    Batch,
    Learner,
    MetaProgress,
    Sinusoid,
    SinusoidEpisodes,
    SinusoidTasks,
    Tensors,
    meta_train,
)

TEST_TASKS = 2_000
QUERY_ROWS = 100
TEST_SEED = 1_000_000
SHOTS = 10
NEVER_FORGET_ROWS = 1e9
LONG_STEPS, LONG_TASKS = 1_000, 200
"""However many steps are asked for, parameters stay finite: tried with these."""


@dataclass(frozen=True)
class Method:
    """How a learner is trained and what is expected of it.

    Attributes:
        title: What the table calls it.
        learner: Its name in LEARNERS.
        hyper_parameters: Its own.
        source: What it is meta-trained on.
        training: Arguments of ``meta_train``.
        by: What the columns count: gradient ``steps`` on 10 points, or labelled points (``shots``) in closed form.
        points: The columns.
        targets: Greatest mean squared error by column, mean over the seeds.
    """

    title: str
    learner: str
    hyper_parameters: Mapping[str, Any]
    source: SinusoidEpisodes
    training: Mapping[str, Any]
    by: str
    points: tuple[int, ...]
    targets: Mapping[int, float]

    def build(self, **changes: Any) -> Learner:
        """The learner, with some hyper-parameters changed."""
        return LEARNERS[self.learner](task="regression", inputs=1, outputs=1, **{**self.hyper_parameters, **changes})

    def at(self, point: int) -> tuple[Learner, int]:
        """The learner that a column asks for, and how many labelled points it gets."""
        return (self.build(steps=point), SHOTS) if self.by == "steps" else (self.build(), point)


_GRADIENT: Mapping[str, Any] = {"hidden": (40, 40), "activation": "relu", "inner_lr": 0.01, "steps": 1}
_TRAINING: Mapping[str, Any] = {"iterations": 15_000, "outer_lr": 3e-3, "schedule": "cosine", "gradient_bound": 10.0}
_STEPS = (0, 1, 2, 5, 10)

METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "maml": Method(
            "MAML, trained on 1 step", "maml", _GRADIENT, SinusoidEpisodes(tasks=25, support=(SHOTS, SHOTS), query=10),
            _TRAINING, "steps", _STEPS, {1: 0.52, 10: 0.17},
        ),
        "meta_sgd": Method(
            "Meta-SGD, trained on 1 step", "meta_sgd", _GRADIENT,
            SinusoidEpisodes(tasks=25, support=(SHOTS, SHOTS), query=10), _TRAINING, "steps", _STEPS, {1: 0.35},
        ),
        "bayes_head": Method(
            "Bayesian head, ALPaCA's protocol", "bayes_head",
            {"hidden": (128, 128, 32), "skip": False, "full_prior": True,
             "tau_rows": (NEVER_FORGET_ROWS,), "challenger_tau_rows": NEVER_FORGET_ROWS},
            SinusoidEpisodes(Sinusoid(noise_std=math.sqrt(0.05)), tasks=40, support=(0, 20), query=20),
            {"iterations": 2_500, "outer_lr": 5e-3, "schedule": "halving"},
            "shots", (0, 1, 2, 5, 10, 20), {5: 0.04, 10: 0.02, 20: 0.01},
        ),
    },
)  # fmt: skip


class TestSet(NamedTuple):
    """Tasks that no training has seen, support rows of each, and query rows without noise."""

    tasks: SinusoidTasks
    support: Batch
    x: Tensor
    truth: Tensor


@dataclass
class Figures:
    """What was measured of a method, an entry a seed."""

    method: Method
    errors: dict[int, list[Tensor]] = field(default_factory=dict)  # column -> (tasks,) a seed
    cpu_seconds: list[float] = field(default_factory=list)
    finite: list[bool] = field(default_factory=list)
    metas: list[Tensors] = field(default_factory=list)

    def mean(self, point: int) -> float:
        """Mean squared error over tasks and seeds."""
        return float(torch.stack(self.errors[point]).mean())

    def interval(self, point: int) -> float:
        """Half width of the 95% interval over the tasks, of the mean over the seeds."""
        by_task = torch.stack(self.errors[point]).mean(0)
        return float(1.96 * by_task.std() / math.sqrt(len(by_task)))

    def missed(self) -> list[str]:
        """Targets that were not reached, as sentences."""
        missed = [
            f"{self.method.title}: {self.mean(point):.3f} at {point} {self.method.by}, target {target}"
            for point, target in self.method.targets.items()
            if not self.mean(point) <= target  # NaN misses
        ]
        return missed if all(self.finite) else [*missed, f"{self.method.title}: not finite after {LONG_STEPS} steps"]


def test_set(family: Sinusoid, tasks: int) -> TestSet:
    """The same tasks and inputs for every method and seed."""
    generator = torch.Generator().manual_seed(TEST_SEED)
    drawn = family.draw(tasks, generator)
    x = family.rows(drawn, QUERY_ROWS, generator).x
    return TestSet(drawn, family.rows(drawn, 20, generator), x, drawn.truth(x))


def adapted(learner: Learner, meta: Tensors, support: Batch) -> Tensors:
    """State of new streams that have learned ``support``, which may have no rows."""
    state = learner.init(meta, support.x.shape[0])
    if support.x.shape[1] == 0:
        return state
    with torch.no_grad():
        return learner.update(meta, state, support, support)[0]


def first_rows(batch: Batch, count: int) -> Batch:
    """The first rows of each task."""
    return Batch(*(tensor[:, :count] for tensor in batch))


def measure(method: Method, meta: Tensors, test: TestSet, long_steps: int) -> tuple[dict[int, Tensor], bool]:
    """Squared error of each task at each column, and whether parameters stay finite after very many steps."""
    errors = {}
    for point in method.points:
        learner, shots = method.at(point)
        state = adapted(learner, meta, first_rows(test.support, shots))
        with torch.no_grad():
            mean = learner.predict(meta, state, test.x).mean[:, 0]
        errors[point] = (mean - test.truth).square().mean((1, 2))
    finite = all(bool(error.isfinite().all()) for error in errors.values())
    if method.by == "steps":
        few = Batch(*(tensor[:LONG_TASKS, :SHOTS] for tensor in test.support))
        state = adapted(method.build(steps=long_steps), meta, few)
        finite = finite and all(bool(tensor.isfinite().all()) for tensor in state.values())
    return errors, finite


def run(method: Method, seeds: int, share: float, tasks: int) -> Figures:
    """Meta-train and measure a method with each seed."""
    figures = Figures(method)
    iterations = max(1, round(method.training["iterations"] * share))
    test = test_set(method.source.family, tasks)

    def tell(progress: MetaProgress) -> None:
        if progress.iteration % 500 == 0:
            print(f"  iteration {progress.iteration}/{iterations}, loss {progress.loss:.3f}", file=sys.stderr)

    for seed in range(seeds):
        print(f"{method.title}, seed {seed}", file=sys.stderr)
        started = time.process_time()
        trained = meta_train(
            method.build(), method.source, generator=torch.Generator().manual_seed(seed), progress=tell,
            **{**method.training, "iterations": iterations},
        )  # fmt: skip
        figures.cpu_seconds.append(time.process_time() - started)
        errors, finite = measure(method, trained.meta, test, max(10, round(LONG_STEPS * share)))
        for point, error in errors.items():
            figures.errors.setdefault(point, []).append(error)
        figures.finite.append(finite)
        figures.metas.append(trained.meta)
        if trained.interrupted:
            raise KeyboardInterrupt
    return figures


def machine() -> str:
    """Processor, cores, and versions, in one line."""
    try:
        names = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                 if line.startswith("model name")]  # fmt: skip
    except OSError:
        names = []
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores, 1 thread; Python {platform.python_version()}, torch {torch.__version__}"


def table(found: Sequence[Figures], date: str) -> str:
    """The figures as Markdown."""
    lines = []
    for by in ("steps", "shots"):
        rows = [figures for figures in found if figures.method.by == by]
        if not rows:
            continue
        points = rows[0].method.points
        unit = "gradient steps on 10 points" if by == "steps" else "labelled points, closed form"
        lines += [
            f"| MSE after … {unit} | {' | '.join(str(point) for point in points)} | CPU s a seed |",
            f"| --- |{' ---: |' * (len(points) + 1)}",
        ]
        for figures in rows:
            cells = [f"{figures.mean(point):.3f} ± {figures.interval(point):.3f}" for point in points]
            seconds = sum(figures.cpu_seconds) / len(figures.cpu_seconds)
            lines.append(f"| {figures.method.title} | {' | '.join(cells)} | {seconds:.0f} |")
        lines.append("")
    seeds = len(found[0].cpu_seconds)
    lines.append(f"Mean over {seeds} seed{'s' * (seeds != 1)} ± 95% interval over the test tasks. {machine()}. {date}.")
    return "\n".join(lines)


def report(found: Sequence[Figures], share: float, tasks: int, date: str) -> dict[str, Any]:
    """The figures as JSON values."""
    return {
        "command": "python -m loadtest.sinusoid",
        "date": date,
        "machine": machine(),
        "test_tasks": tasks,
        "query_rows": QUERY_ROWS,
        "methods": {
            figures.method.learner: {
                "title": figures.method.title,
                "hyper_parameters": dict(figures.method.hyper_parameters),
                "training": {**figures.method.training, "tasks": figures.method.source.tasks},
                "share_of_iterations": share,
                "by": figures.method.by,
                "mse": {
                    str(point): {
                        "mean": figures.mean(point),
                        "interval_95": figures.interval(point),
                        "seeds": [float(error.mean()) for error in figures.errors[point]],
                    }
                    for point in figures.method.points
                },
                "targets": {str(point): target for point, target in figures.method.targets.items()},
                "missed": figures.missed(),
                "finite": all(figures.finite),
                "cpu_seconds": figures.cpu_seconds,
            }
            for figures in found
        },
    }


def picture(found: Sequence[Figures], path: Path) -> None:
    """Draw the first test task whose amplitude is large, before and after adaptation by each method."""
    panels = []
    for figures in found:
        method, meta = figures.method, figures.metas[0]
        test = test_set(method.source.family, 50)
        task = int((test.tasks.amplitude - 4.0).abs().argmin())
        one = Batch(*(tensor[task : task + 1, :SHOTS] for tensor in test.support))
        x = torch.linspace(-5.0, 5.0, 201).view(1, -1, 1)
        truth = SinusoidTasks(test.tasks.amplitude[task : task + 1], test.tasks.phase[task : task + 1]).truth(x)
        curves = {}
        for point in method.points[:1] + ((1, 10) if method.by == "steps" else (5, 10)):
            learner, shots = method.at(point)
            state = adapted(learner, meta, first_rows(one, shots))
            with torch.no_grad():
                predictive = learner.predict(meta, state, x)
            curves[f"{point} {method.by}"] = (predictive.mean[0, 0, :, 0], predictive.var[0, 0, :, 0].sqrt())
        panels.append(Panel(method.title, x[0, :, 0], truth[0, :, 0], one.x[0, :, 0], one.y[0, :, 0], curves))
    draw(panels, path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0 if every target was reached, 1 if not. Shortened runs are not held to the targets."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.sinusoid", description=__doc__.splitlines()[0])
    parser.add_argument("--method", action="append", choices=list(METHODS), help="only this one; may be repeated")
    parser.add_argument("--seeds", type=int, default=3, help="seeds a method (default: 3)")
    parser.add_argument("--share", type=float, default=1.0, help="share of the iterations (default: 1, the protocol's)")
    parser.add_argument("--tasks", type=int, default=TEST_TASKS, help=f"test tasks (default: {TEST_TASKS})")
    parser.add_argument("--json", type=Path, default=Path("build/sinusoid.json"), help="figures (default: %(default)s)")
    parser.add_argument("--plot", type=Path, default=Path("build/sinusoid.png"), help="picture (default: %(default)s)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    names = options.method or list(METHODS)
    found = [run(METHODS[name], options.seeds, options.share, options.tasks) for name in names]
    date = datetime.now(UTC).date().isoformat()
    print(table(found, date))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report(found, options.share, options.tasks, date), indent=2) + "\n", "utf-8")
    options.plot.parent.mkdir(parents=True, exist_ok=True)
    picture(found, options.plot)
    print(f"Figures in {options.json}, picture in {options.plot}.")
    if options.share < 1.0:
        print("Shortened run: targets are not judged.")
        return 0
    missed = [sentence for figures in found for sentence in figures.missed()]
    print("\n".join(missed) or "All targets reached.")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
