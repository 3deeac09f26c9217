"""Few-shot classification of Omniglot's characters by every learner that it suits: ``python -m loadtest.omniglot``.

Meta-trained on the five alphabets of the second small background set, the larger one, tested on those of the first that
the second does not hold, characters of all of them mixed in a task. Prints a table, writes the figures as JSON and
draws them. Exit code 1 if the target is missed.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loadtest.fewshot import adapted
from loadtest.omniglot_data import TEST, TRAINING, CharacterEpisodes, characters, read_alphabets, unseen, with_rotations
from loadtest.omniglot_methods import METHODS, Method, narrowed
from loadtest.omniglot_plot import draw
from loadtest.omniglot_report import PIXELS, Figures, baseline, entry, missed, table
from models import Learner, MetaProgress, Tensors, meta_train

WAYS, SHOTS, QUERY = 5, (1, 5), 5
TEST_TASKS, TASKS_AT_ONCE = 500, 20
TEST_SEED = 1_000_000


def test_tasks(drawings: Tensor, tasks: int, shots: int) -> CharacterEpisodes:
    """Episodes for testing: no rotations, no warps."""
    return CharacterEpisodes(drawings, tasks=tasks, ways=WAYS, shots=(shots,), query=QUERY)


def test_generator(shots: int) -> torch.Generator:
    """The same tasks for every method and seed."""
    return torch.Generator().manual_seed(TEST_SEED + shots)


def accuracy(learner: Learner, meta: Tensors, drawings: Tensor, shots: int, tasks: int) -> Tensor:
    """(tasks,) share of right answers after ``shots`` drawings of each of five new characters."""
    at_once = min(tasks, TASKS_AT_ONCE)
    source, generator = test_tasks(drawings, at_once, shots), test_generator(shots)
    found = []
    for _ in range(math.ceil(tasks / at_once)):
        support, query = source(generator)
        state = adapted(learner, meta, support)
        with torch.no_grad():
            answers = learner.predict(meta, state, query.x).mean[:, 0].argmax(-1)
        found.append((answers == query.y).float().mean(1))
    return torch.cat(found)[:tasks]


def nearest_pixels(drawings: Tensor, shots: int, tasks: int) -> Tensor:
    """(tasks,) share of right answers where the class is that of the nearest labelled image, pixel by pixel."""
    support, query = test_tasks(drawings, tasks, shots)(test_generator(shots))
    answers = support.y.gather(1, torch.cdist(query.x, support.x).argmin(-1))
    return (answers == query.y).float().mean(1)


def run(method: Method, training: Tensor, test: Tensor, options: argparse.Namespace) -> Figures:
    """Meta-train and test a method with each seed."""
    figures = Figures()
    source = CharacterEpisodes(training, **method.episodes)
    iterations = max(1, round(method.training["iterations"] * options.share))

    def tell(progress: MetaProgress) -> None:
        if progress.iteration % 100 == 0:
            print(f"  iteration {progress.iteration}/{iterations}, loss {progress.loss:.3f}", file=sys.stderr)

    for seed in range(options.seeds):
        print(f"{method.title}, seed {seed}", file=sys.stderr)
        started = time.process_time()
        trained = meta_train(
            method.build(source.ways), source, generator=torch.Generator().manual_seed(seed), progress=tell,
            **{**method.training, "iterations": iterations},
        )  # fmt: skip
        figures.cpu_seconds.append(time.process_time() - started)
        learner, meta = method.build(WAYS, **method.at_test), narrowed(trained.meta, WAYS)
        figures.add({shots: accuracy(learner, meta, test, shots, options.tasks) for shots in SHOTS})
        if trained.interrupted:
            raise KeyboardInterrupt
    return figures


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtest.omniglot", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help=f"folder with {TRAINING} and {TEST}")
    parser.add_argument(
        "--method", action="append", choices=list(METHODS),
        help="only this one; may be repeated; the other methods' figures in the file stay",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=1, help="seeds a method (default: 1)")
    parser.add_argument("--share", type=float, default=1.0, help="share of the iterations (default: 1, the protocol's)")
    parser.add_argument("--tasks", type=int, default=TEST_TASKS, help=f"test tasks (default: {TEST_TASKS})")
    parser.add_argument("--json", type=Path, default=Path("build/omniglot.json"), help="figures (default: %(default)s)")
    parser.add_argument("--plot", type=Path, default=Path("build/omniglot.png"), help="picture (default: %(default)s)")
    options = parser.parse_args(arguments)
    absent = [name for name in (TRAINING, TEST) if not (options.data / name).is_file()]
    if absent:
        parser.error(f"--data {options.data} holds no {' and no '.join(absent)}; both come with Omniglot")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0 if the target was reached, 1 if not. Shortened runs are not held to it."""
    options = _options(arguments)
    torch.set_num_threads(1)
    known = read_alphabets(options.data / TRAINING)
    held_out = unseen(read_alphabets(options.data / TEST), known)
    training, test = with_rotations(characters(known), mirrored=True), characters(held_out)
    entries: dict[str, dict[str, Any]] = {}
    if options.method and options.json.exists():
        entries = json.loads(options.json.read_text("utf-8"))["methods"]
    pixels = Figures({shots: [nearest_pixels(test, shots, options.tasks)] for shots in SHOTS})
    entries[PIXELS] = baseline(pixels)
    date = datetime.now(UTC).date().isoformat()
    options.json.parent.mkdir(parents=True, exist_ok=True)
    for name in options.method or METHODS:
        entries[name] = entry(METHODS[name], run(METHODS[name], training, test, options), options.share, date)
        entries = {one: entries[one] for one in (PIXELS, *METHODS) if one in entries}
        found = {
            "command": "python -m loadtest.omniglot", "test_tasks": options.tasks, "training_alphabets": sorted(known),
            "test_alphabets": sorted(held_out), "methods": entries,
        }  # fmt: skip
        options.json.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    options.plot.parent.mkdir(parents=True, exist_ok=True)
    draw(test_tasks(test, 1, 1)(test_generator(1)), entries, options.plot)
    print(table(entries))
    print(
        f"\nMean ± 95% interval over {options.tasks} test tasks. Figures in {options.json}, picture in {options.plot}."
    )
    if options.share < 1.0:
        print("Shortened run: the target is not judged.")
        return 0
    sentences = missed(entries)
    print("\n".join(sentences) or "Target reached.")
    return 1 if sentences else 0


if __name__ == "__main__":
    sys.exit(main())
