"""What adapting and learning cost without HTTP: in units of matrix products, of a loop of autograd, and a row.

``python -m loadtest.engine_rate``. One thread; contenders take turns in every round, and CPU time is what counts.
"""

import argparse
import copy
import itertools
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models import (
    LEARNERS,
    Batch,
    DetectorChoice,
    Engine,
    Expert,
    Feature,
    Feedback,
    Model,
    ModelSpec,
    Plan,
    Target,
    Tensors,
    use_threads,
)
from service.allocator import keep_freed_memory

STREAMS = (64, 256, 1024)
INPUTS, HIDDEN, WINDOW, STEPS = 8, (64, 64), 32, 5
"""The network that adapts: 8-64-64-1, on 32 rows, in 5 steps."""
INNER_LR = 0.01
GEMM_SIZE = 1024
GEMM_SHARE, AUTOGRAD_RATIO, ROW_US = 0.40, 15.0, 60.0
"""Targets."""
HEAD_INPUTS = 31
"""With the constant a head of 32 features."""
ROUNDS = 15


def cpu_s(work: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    began = time.process_time()
    work()
    return time.process_time() - began


def adaptation(streams: int, rounds: int) -> dict[str, float]:
    """Share of the machine's own rate of matrix products, and how much dearer loops of autograd are, a stream."""
    learner = LEARNERS["maml"](
        task="regression", inputs=INPUTS, outputs=1, hidden=HIDDEN, steps=STEPS, inner_lr=INNER_LR
    )
    generator = torch.Generator().manual_seed(0)
    meta = learner.meta_init(generator)
    x, y = (
        torch.randn(streams, WINDOW, INPUTS, generator=generator),
        torch.randn(streams, WINDOW, 1, generator=generator),
    )
    batch = Batch(x, y, torch.ones(streams, WINDOW, dtype=torch.bool))
    square = torch.randn(GEMM_SIZE, GEMM_SIZE, generator=generator)
    flops = STEPS * 3 * 2 * WINDOW * sum(a * b for a, b in zip((INPUTS, *HIDDEN), (*HIDDEN, 1), strict=True))
    net = network_of(meta)
    shares, loops, leanest = [], [], []
    with torch.no_grad():
        for turn in range(rounds + 1):
            gemm = 2 * GEMM_SIZE**3 / cpu_s(lambda: square @ square)
            ours = cpu_s(lambda: learner.adapt(meta, batch))  # type: ignore[attr-defined]
            loop = cpu_s(lambda: by_modules(net, x[0], y[0]))
            lean = cpu_s(lambda: by_functions(learner.net, meta, x[0], y[0]))  # type: ignore[attr-defined]
            if turn:  # the first is a warm-up
                shares.append(streams * flops / ours / gemm)
                loops.append(loop / (ours / streams))
                leanest.append(lean / (ours / streams))
    return {
        "streams": streams,
        "gemm_share": statistics.median(shares),
        "autograd_ratio": statistics.median(loops),
        "lean_ratio": statistics.median(leanest),
    }


def network_of(meta: Tensors) -> nn.Sequential:
    """The network as a module with the same weights."""
    layers: list[nn.Module] = []
    for number, (below, above) in enumerate(itertools.pairwise((INPUTS, *HIDDEN, 1))):
        layer = nn.Linear(below, above)
        layer.load_state_dict({"weight": meta[f"weight_{number}"].mT, "bias": meta[f"bias_{number}"]})
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def by_modules(net: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    """The same steps of one stream as they are usually written: a copied module and an optimizer."""
    fast = copy.deepcopy(net)
    optimizer = torch.optim.SGD(fast.parameters(), lr=INNER_LR)
    with torch.enable_grad():
        for _ in range(STEPS):
            optimizer.zero_grad()
            nn.functional.mse_loss(fast(x), y).backward()
            optimizer.step()
    return fast


def by_functions(net: Any, meta: Tensors, x: Tensor, y: Tensor) -> Tensors:
    """The same steps of one stream without modules or an optimizer, the least that autograd can cost."""
    fast = {name: meta[name].detach() for name in net.names}
    for _ in range(STEPS):
        with torch.enable_grad():
            leaves = {name: tensor.requires_grad_() for name, tensor in fast.items()}
            loss = (net.apply({name: leaf[None] for name, leaf in leaves.items()}, x[None]) - y[None]).square().mean()
            gradients = torch.autograd.grad(loss, list(leaves.values()))
        fast = {name: (leaf - INNER_LR * g).detach() for (name, leaf), g in zip(leaves.items(), gradients, strict=True)}
    return fast


def head(streams: int, rows: int, rounds: int) -> dict[str, float]:
    """CPU microseconds a row of the default Bayesian head with 32 features: predict, score, detect, learn, serve."""
    hyper = {"hidden": (), "tau_rows": (100.0, 500.0, 3000.0)}
    spec = ModelSpec(
        name="rate",
        task="regression",
        features=tuple(Feature(f"x{at}") for at in range(HEAD_INPUTS)),
        target=Target("y"),
        experts=(Expert("bayes_head", "bayes_head", hyper),),
        detector=DetectorChoice("llr_cusum"),
    )
    generator = torch.Generator().manual_seed(0)
    learners = Plan.of(spec).learners
    meta = {
        f"{name}.{key}": tensor for name, one in learners.items() for key, tensor in one.meta_init(generator).items()
    }
    engine, draw = Engine(Model(spec, meta)), np.random.default_rng(0)
    slots, found = [engine.create() for _ in range(streams)], []
    for turn in range(rounds + 3):
        x = draw.normal(size=(streams, rows, HEAD_INPUTS))
        items = [Feedback(slot, own, own[:, :1]) for slot, own in zip(slots, x, strict=True)]
        took = cpu_s(lambda items=items: engine.apply(engine.step(items)))  # type: ignore[misc]
        if turn >= 3:
            found.append(took)
    return {"streams": streams, "rows": rows, "us_a_row": 1e6 * statistics.median(found) / streams / rows}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both tables; exit code 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.engine_rate", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="turns of each contender (default: %(default)d)")
    parser.add_argument("--json", type=Path, default=Path("build/engine_rate.json"), help="file for all figures")
    given = parser.parse_args(arguments)
    use_threads(1)
    keep_freed_memory()
    print("| network, streams | of the rate of matrix products | loop of autograd ÷ ours | the leanest ÷ ours |")
    print("| ---: | ---: | ---: | ---: |")
    networks = [adaptation(streams, given.rounds) for streams in STREAMS]
    for one in networks:
        ratios = f"{one['autograd_ratio']:.1f} | {one['lean_ratio']:.1f}"
        print(f"| {one['streams']:,} | {one['gemm_share']:.0%} | {ratios} |", flush=True)
    print("\n| Bayesian head, streams | rows a batch | CPU µs a row |\n| ---: | ---: | ---: |")
    heads = [head(streams, rows, given.rounds) for streams, rows in ((1, 1), *((s, 1) for s in STREAMS), (64, 32))]
    for each in heads:
        print(f"| {each['streams']:,} | {each['rows']} | {each['us_a_row']:,.1f} |", flush=True)
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps({"networks": networks, "heads": heads}, indent=1) + "\n", encoding="utf-8")
    missed = [f"{one['streams']} streams" for one in networks if one["gemm_share"] < GEMM_SHARE]
    missed += ["autograd" for one in networks if one["autograd_ratio"] < AUTOGRAD_RATIO]
    missed += ["the head" for each in heads if (each["streams"], each["rows"]) == (64, 1) and each["us_a_row"] > ROW_US]
    if missed:
        raise SystemExit(f"below target: {', '.join(missed)}")


if __name__ == "__main__":
    main()
