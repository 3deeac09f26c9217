"""The few-shot sinusoid benchmark of the MAML paper, for every learner that it suits: ``python -m loadtest.sinusoid``.

Each method is meta-trained from scratch with several seeds, then adapted to 2,000 tasks it has never seen. Prints
tables, writes the figures as JSON and draws one task before and after adaptation. Exit code 1 if a target is missed.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from loadtest.fewshot import adapted, first_rows
from loadtest.sinusoid_methods import METHODS, SHOTS, Method
from loadtest.sinusoid_plot import Panel, draw
from loadtest.sinusoid_report import Figures, entry, table
from models import Batch, Learner, MetaProgress, Sinusoid, SinusoidTasks, Tensors, meta_train

TEST_TASKS = 2_000
QUERY_ROWS = 100
TEST_SEED = 1_000_000
LONG_STEPS, LONG_TASKS = 1_000, 200
"""However many steps are asked for, parameters stay finite: tried with these."""


class TestSet(NamedTuple):
    """Tasks that no training has seen, support rows of each, and query rows without noise."""

    tasks: SinusoidTasks
    support: Batch
    x: Tensor
    truth: Tensor


def test_set(family: Sinusoid, tasks: int) -> TestSet:
    """The same tasks and inputs for every method and seed."""
    generator = torch.Generator().manual_seed(TEST_SEED)
    drawn = family.draw(tasks, generator)
    x = family.rows(drawn, QUERY_ROWS, generator).x
    return TestSet(drawn, family.rows(drawn, 20, generator), x, drawn.truth(x))


def squared_error(learner: Learner, meta: Tensors, test: TestSet, shots: int) -> Tensor:
    """(tasks,) mean squared error after the first ``shots`` labelled points of each task."""
    state = adapted(learner, meta, first_rows(test.support, shots))
    with torch.no_grad():
        mean = learner.predict(meta, state, test.x).mean[:, 0]
    return (mean - test.truth).square().mean((1, 2))


def measure(method: Method, meta: Tensors, test: TestSet, long_steps: int) -> tuple[dict[str, dict[int, Tensor]], bool]:
    """Squared error of each task at each column, and whether parameters stay finite after very many steps."""
    errors = {
        "shots": {shots: squared_error(method.build(), meta, test, shots) for shots in method.shots},
        "steps": {steps: squared_error(method.build(steps=steps), meta, test, SHOTS) for steps in method.steps},
    }
    finite = all(bool(error.isfinite().all()) for columns in errors.values() for error in columns.values())
    if method.steps:
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
        figures.add(errors)
        figures.finite.append(finite)
        figures.metas.append(trained.meta)
        if trained.interrupted:
            raise KeyboardInterrupt
    return figures


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
        for point in (0, 1, 10) if method.steps else (0, 5, 10):
            learner, shots = (method.build(steps=point), SHOTS) if method.steps else (method.build(), point)
            state = adapted(learner, meta, first_rows(one, shots))
            with torch.no_grad():
                predictive = learner.predict(meta, state, x)
            name = f"{point} {'steps' if method.steps else 'shots'}"
            curves[name] = (predictive.mean[0, 0, :, 0], predictive.var[0, 0, :, 0].sqrt())
        panels.append(Panel(method.title, x[0, :, 0], truth[0, :, 0], one.x[0, :, 0], one.y[0, :, 0], curves))
    draw(panels, path)


def _before(path: Path) -> dict[str, Any]:
    """Figures of the methods that an earlier run has written."""
    return dict(json.loads(path.read_text("utf-8"))["methods"]) if path.exists() else {}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0 if every target was reached, 1 if not. Shortened runs are not held to the targets."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.sinusoid", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--method", action="append", choices=list(METHODS),
        help="only this one; may be repeated; the other methods' figures in the file stay",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=3, help="seeds a method (default: 3)")
    parser.add_argument("--share", type=float, default=1.0, help="share of the iterations (default: 1, the protocol's)")
    parser.add_argument("--tasks", type=int, default=TEST_TASKS, help=f"test tasks (default: {TEST_TASKS})")
    parser.add_argument("--json", type=Path, default=Path("build/sinusoid.json"), help="figures (default: %(default)s)")
    parser.add_argument("--plot", type=Path, default=Path("build/sinusoid.png"), help="picture (default: %(default)s)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    date = datetime.now(UTC).date().isoformat()
    options.json.parent.mkdir(parents=True, exist_ok=True)
    entries = _before(options.json) if options.method else {}
    drawn = []
    for name in options.method or METHODS:
        figures = run(METHODS[name], options.seeds, options.share, options.tasks)
        entries[name] = entry(figures, options.share, date)
        entries = {known: entries[known] for known in METHODS if known in entries}
        found = {"command": "python -m loadtest.sinusoid", "test_tasks": options.tasks, "query_rows": QUERY_ROWS}
        options.json.write_text(json.dumps({**found, "methods": entries}, indent=2) + "\n", "utf-8")
        drawn += [figures] if figures.method.drawn else []
    print(table(list(entries.values())))
    print(f"\nMean over the seeds ± 95% interval over {options.tasks} test tasks. Figures in {options.json}.")
    if drawn:
        options.plot.parent.mkdir(parents=True, exist_ok=True)
        picture(drawn, options.plot)
        print(f"Picture in {options.plot}.")
    if options.share < 1.0:
        print("Shortened run: targets are not judged.")
        return 0
    missed = [sentence for found in entries.values() for sentence in found["missed"]]
    print("\n".join(missed) or "All targets reached.")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
