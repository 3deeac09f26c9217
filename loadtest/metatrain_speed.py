"""Meta-training side by side with per-task loops: ``python -m loadtest.metatrain_speed``.

The sinusoid protocol of the MAML paper: 25 tasks of 10 support and 10 query points, network 1-40-40-1 with ReLU, one
inner step at 0.01, second order, Adam 0.001. Every contender has the same tensors and sees the same tasks in the same
order; their first meta-gradients are compared, then stretches of iterations are timed in turn, round after round, so
that all meet the same load. learn2learn and higher take part where they can be imported. Exit code 1 if a contender
computes something else, or with ``--least`` if the ratio to the per-task loops is smaller.
"""

import argparse
import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, mse_loss, relu

from loadtest.fewshot import machine
from models import LEARNERS, Episode, Learner, SinusoidEpisodes, Tensors, meta_train

HIDDEN = (40, 40)
INNER_LR = 0.01
OUTER_LR = 1e-3
EPISODES = SinusoidEpisodes(tasks=25, support=(10, 10), query=10)
OURS = "acclimate, batched over tasks"
LAYERS = 3
AGREE = 1e-4
"""Relative difference of meta-gradients, float32, that counts as equal."""


class Contender(NamedTuple):
    """One implementation of an outer iteration.

    Attributes:
        gradient: The meta-gradient of an episode, weights then biases layer by layer, as one vector.
        train: Do so many outer iterations on the tasks of a seed.
    """

    gradient: Callable[[Episode], Tensor]
    train: Callable[[int, int], None]


class Timing(NamedTuple):
    """Milliseconds of an outer iteration, one number a round."""

    wall_ms: list[float]
    cpu_ms: list[float]


def ours(meta: Tensors) -> Contender:
    """What ``acclimate train --tasks sinusoid`` runs: ``meta_train``, its noise model included."""
    learner = LEARNERS["maml"](task="regression", inputs=1, outputs=1, hidden=HIDDEN, inner_lr=INNER_LR, steps=1)

    def gradient(episode: Episode) -> Tensor:
        leaves = {name: tensor.clone().requires_grad_() for name, tensor in meta.items()}
        wanted = [leaves[name] for name in names()]
        found = torch.autograd.grad(learner.meta_loss(leaves, episode), wanted)
        return torch.cat([tensor.flatten() for tensor in found])

    def train(iterations: int, seed: int) -> None:
        meta_train(
            learner, EPISODES, generator=torch.Generator().manual_seed(seed), iterations=iterations,
            outer_lr=OUTER_LR, schedule="constant", start=meta,
        )  # fmt: skip

    return Contender(gradient, train)


def names() -> list[str]:
    """Names of the network's tensors in our bundles."""
    return [f"{kind}_{layer}" for layer in range(LAYERS) for kind in ("weight", "bias")]


def module_of(meta: Tensors) -> nn.Sequential:
    """The same network as a module, as users of the libraries write it."""
    layers = [nn.Linear(1, 40), nn.Linear(40, 40), nn.Linear(40, 1)]
    with torch.no_grad():
        for number, layer in enumerate(layers):
            layer.weight.copy_(meta[f"weight_{number}"].T)
            layer.bias.copy_(meta[f"bias_{number}"])
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])


def looping(module: nn.Module, loss_of_task: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> Contender:
    """An outer loop over tasks one by one; each task's loss is sent back as soon as it is there, which saves memory."""
    parameters = list(module.parameters())
    begin = [parameter.detach().clone() for parameter in parameters]

    def accumulate(episode: Episode) -> None:
        for parameter in parameters:
            parameter.grad = None
        support, query = episode
        tasks = support.x.shape[0]
        for task in range(tasks):
            loss = loss_of_task(support.x[task], support.y[task], query.x[task], query.y[task])
            (loss / tasks).backward()

    def gradient(episode: Episode) -> Tensor:
        accumulate(episode)
        found = [parameter.grad for parameter in parameters]
        return torch.cat([part.t().flatten() for part in found if part is not None])

    def train(iterations: int, seed: int) -> None:
        with torch.no_grad():
            for parameter, value in zip(parameters, begin, strict=True):
                parameter.copy_(value)
        adam = torch.optim.Adam(parameters, lr=OUTER_LR)
        generator = torch.Generator().manual_seed(seed)
        for _ in range(iterations):
            accumulate(EPISODES(generator))
            adam.step()

    return Contender(gradient, train)


def plain_loop(meta: Tensors) -> Contender:
    """``torch.autograd`` and functional layers, no library: the leanest loop over tasks."""
    module = module_of(meta)
    parameters = list(module.parameters())

    def forward(weights: Sequence[Tensor], x: Tensor) -> Tensor:
        x = relu(linear(x, weights[0], weights[1]))
        x = relu(linear(x, weights[2], weights[3]))
        return linear(x, weights[4], weights[5])

    def loss(x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor) -> Tensor:
        inner = mse_loss(forward(parameters, x), y)
        gradients = torch.autograd.grad(inner, parameters, create_graph=True)
        fast = [parameter - INNER_LR * slope for parameter, slope in zip(parameters, gradients, strict=True)]
        return mse_loss(forward(fast, query_x), query_y)

    return looping(module, loss)


def learn2learn_loop(meta: Tensors, library: ModuleType) -> Contender:
    """learn2learn's ``MAML``: clone, adapt, judge."""
    maml = library.MAML(module_of(meta), lr=INNER_LR, first_order=False)

    def loss(x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor) -> Tensor:
        clone = maml.clone()
        clone.adapt(mse_loss(clone(x), y))
        return mse_loss(clone(query_x), query_y)

    return looping(maml, loss)


def higher_loop(meta: Tensors, library: ModuleType) -> Contender:
    """The ``innerloop_ctx`` of higher over SGD."""
    module = module_of(meta)
    inner = torch.optim.SGD(module.parameters(), lr=INNER_LR)

    def loss(x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor) -> Tensor:
        with library.innerloop_ctx(module, inner, copy_initial_weights=False) as (fast, steps):
            steps.step(mse_loss(fast(x), y))
            judged: Tensor = mse_loss(fast(query_x), query_y)
            return judged

    return looping(module, loss)


LIBRARIES: Mapping[str, tuple[str, Callable[[Tensors, ModuleType], Contender]]] = {
    "learn2learn, per task": ("learn2learn.algorithms.maml", learn2learn_loop),
    "higher, per task": ("higher", higher_loop),
}
"""Contenders that need a package, and the module that has what they use."""


def contenders(meta: Tensors) -> tuple[dict[str, Contender], list[str]]:
    """All that can take part, and who cannot and why."""
    found = {OURS: ours(meta), "plain autograd, per task": plain_loop(meta)}
    absent = []
    for name, (module, build) in LIBRARIES.items():
        try:
            found[name] = build(meta, importlib.import_module(module))
        except ImportError as error:
            absent.append(f"{name}: not measured ({error})")
    return found, absent


def differences(found: Mapping[str, Contender]) -> dict[str, float]:
    """Relative distance of each contender's first meta-gradient from ours."""
    episode = EPISODES(torch.Generator().manual_seed(0))
    own = found[OURS].gradient(episode)
    return {name: float((each.gradient(episode) - own).norm() / own.norm()) for name, each in found.items()}


def measure(found: Mapping[str, Contender], rounds: int, iterations: int) -> dict[str, Timing]:
    """Time stretches of iterations, contender after contender, round after round; a warm-up round does not count."""
    timings = {name: Timing([], []) for name in found}
    for turn in range(rounds + 1):
        for name, contender in found.items():
            wall, cpu = time.perf_counter(), time.process_time()
            contender.train(iterations, turn)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            if turn:
                timings[name].wall_ms.append(1e3 * wall / iterations)
                timings[name].cpu_ms.append(1e3 * cpu / iterations)
    return timings


def ratio(timings: Mapping[str, Timing], name: str) -> float:
    """Median wall time of a contender's iteration, as a multiple of our median."""
    return statistics.median(timings[name].wall_ms) / statistics.median(timings[OURS].wall_ms)


def table(timings: Mapping[str, Timing]) -> str:
    """The figures as Markdown."""
    lines = [
        "| outer iteration of 25 tasks | median ms | least | greatest | CPU, median ms | median ÷ ours |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, (wall, cpu) in timings.items():
        cells = [f"{value:.2f}" for value in (statistics.median(wall), min(wall), max(wall), statistics.median(cpu))]
        lines.append(f"| {name} | {' | '.join(cells)} | {ratio(timings, name):.1f} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.metatrain_speed", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="timed rounds (default: %(default)s)")
    parser.add_argument("--iterations", type=int, default=40, help="outer iterations a stretch (default: %(default)s)")
    parser.add_argument("--least", type=float, default=0.0, help="least ratio to every loop (default: none is asked)")
    parser.add_argument(
        "--json", type=Path, default=Path("build/metatrain_speed.json"), help="figures (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    learner: Learner = LEARNERS["maml"](task="regression", inputs=1, outputs=1, hidden=HIDDEN)
    found, absent = contenders(learner.meta_init(torch.Generator().manual_seed(0)))
    distances = differences(found)
    timings = measure(found, options.rounds, options.iterations)
    date = datetime.now(UTC).date().isoformat()
    print(table(timings))
    print("\n".join(["", *absent, f"{options.rounds} rounds of {options.iterations} iterations. {machine()}. {date}."]))
    figures: dict[str, Any] = {
        "command": "python -m loadtest.metatrain_speed",
        "date": date,
        "machine": machine(),
        "rounds": options.rounds,
        "iterations": options.iterations,
        "absent": absent,
        "contenders": {
            name: {**timing._asdict(), "ratio": ratio(timings, name), "gradient_difference": distances[name]}
            for name, timing in timings.items()
        },
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(figures, indent=2) + "\n", "utf-8")
    wrong = [f"{name}: its meta-gradient differs by {value:.2g}" for name, value in distances.items() if value > AGREE]
    slow = [
        f"{name}: only {ratio(timings, name):.1f} times slower than ours, {options.least} asked"
        for name in timings
        if name != OURS and ratio(timings, name) < options.least
    ]
    print("\n".join(wrong + slow) or f"All meta-gradients agree. Figures in {options.json}.")
    return 1 if wrong or slow else 0


if __name__ == "__main__":
    sys.exit(main())
