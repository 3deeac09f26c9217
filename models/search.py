"""Architecture search over the sizes of the network: successive halving by meta-validation.

All candidates are trained shortly, the better half of them twice as long, and so on: every round costs about the same,
and most of the time goes to what looks good.

Reference:
    Jamieson, Talwalkar (2016). Non-stochastic best arm identification and hyperparameter optimization. AISTATS.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from models.training import Follow, Interrupted, Split, TrainSettings, fit, part_of
from models.types import ModelSpec

CANDIDATES: tuple[tuple[int, ...], ...] = (
    (16,), (32,), (64,), (32, 16), (64, 32), (128, 64), (64, 64, 32), (128, 128, 64),
)  # fmt: skip
"""Widths of the hidden layers that are tried."""
FIRST_ITERATIONS = 50
"""Meta-iterations of a candidate in the first round; doubled in each further one."""
SEARCH_SHARE = 0.4
"""Share of the budget that the search may take."""


def choose_network(
    spec: ModelSpec,
    split: Split,
    settings: TrainSettings,
    seconds: float,
    choices: list[str],
    progress: Follow,
    candidates: Sequence[tuple[int, ...]] = CANDIDATES,
) -> ModelSpec:
    """The spec with the hidden widths that validate best; what was tried is in its provenance, as ``search``.

    Args:
        spec: The model; all experts that have a network take the widths.
        split: Rows to learn from, and those to validate on.
        settings: How to train.
        seconds: Most time that the search may take.
        choices: Told what was tried and chosen.
        progress: Told how far the search is.
        candidates: Hidden widths to try.

    Raises:
        Interrupted: By Ctrl-C, with the model so far.
    """
    alive, iterations, tried = list(candidates), FIRST_ITERATIONS, list[dict[str, Any]]()
    rounds = (len(alive) - 1).bit_length()
    for number in range(rounds):
        scores: dict[tuple[int, ...], float] = {}
        for position, widths in enumerate(alive):
            done = (number + position / len(alive)) / rounds
            follow = part_of(progress, done, done + 1 / (rounds * len(alive)), f"network {_text(widths)}")
            share = seconds / (rounds * len(alive))
            fitted = fit(_with(spec, widths), split, settings, share, iterations, follow)
            if fitted.interrupted:
                raise Interrupted(fitted.model)
            if fitted.score is None:
                choices.append("network: as it is by default; too few rows are held out to choose by")
                return spec
            scores[widths] = fitted.score
            tried.append({"hidden": list(widths), "iterations": iterations, "score": fitted.score})
        alive = sorted(alive, key=lambda widths: scores[widths])[: (len(alive) + 1) // 2]
        listed = ", ".join(f"{_text(widths)} {score:.4g}" for widths, score in scores.items())
        choices.append(f"network, round {number + 1}, up to {iterations} iterations, validation loss: {listed}")
        iterations *= 2
    choices.append(f"network: hidden widths {_text(alive[0])}")
    return replace(_with(spec, alive[0]), provenance={**spec.provenance, "search": tried})


def _with(spec: ModelSpec, widths: tuple[int, ...]) -> ModelSpec:
    experts = tuple(
        replace(expert, hyper_parameters={**expert.hyper_parameters, "hidden": widths})
        if "hidden" in expert.hyper_parameters
        else expert
        for expert in spec.experts
    )
    return replace(spec, experts=experts)


def _text(widths: tuple[int, ...]) -> str:
    return "-".join(map(str, widths))
