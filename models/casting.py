"""Which members a committee keeps: the candidates run over held-out rows, and a greedy choice among them.

Every candidate is trained; here their predictions on rows that none has seen are mixed as the server would mix them, at
the stated label delay, and only those stay whose presence lowers the error.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from models import adaptation
from models.adaptation import Plan
from models.bundle import Model
from models.features import encode_rows, standardise
from models.memory import Rows
from models.start import PREFIX
from models.targets import encode_targets, from_scale, to_scale
from models.tasks.episodes import label_vectors, lag_values, own_delay
from models.tasks.table import IntArray
from models.training import SEGMENT_ROWS, Split
from models.types import FloatArray, ModelSpec

CONTEXT_ROWS = 1024
"""Rows that a stream learns before its held-out stretch, where the table is one long stream."""
SHARES = (0.01, 0.001)
"""Fixed shares that are tried."""
GAIN_MIN = 0.003
"""A further member must lower the error by this share of it."""
MEMBERS_MAX = 6
HEDGE = 3.0
"""The best member of an expert that would be left out stays if its error is at most this many times the least: what is
best on the held-out rows need not be best later, and the weights can tell then."""


class Audition(NamedTuple):
    """What M candidates said of N held-out stretches of L rows each.

    Attributes:
        said: (N, L, M, O) numbers in the learners' scale, or (N, L, M, C) log probabilities, at the time of asking.
        evidence: (N, L, M) log-likelihood of each row under each member when it was learned, ``delay`` rows later.
        truth: (N, L) labels, or class indices.
        scored: (N, L) bool.
        delay: Rows of a stream after which a label is known.
    """

    said: FloatArray
    evidence: FloatArray
    truth: FloatArray
    scored: FloatArray
    delay: int


def stretches_of(split: Split) -> list[tuple[IntArray, int]]:
    """Held-out stretches: indices of rows in time order, and how many of the first only lead in."""
    alone = len(split.judge) == 1
    found = []
    for before, places in zip(split.learn, split.judge, strict=False):
        for start in range(0, len(places), SEGMENT_ROWS):
            lead = np.concatenate([before, places[:start]])[-CONTEXT_ROWS:] if alone else places[:0]
            found.append((np.concatenate([lead, places[start : start + SEGMENT_ROWS]]), len(lead)))
    return found


@torch.no_grad()
def audition(model: Model, split: Split) -> Audition:
    """Run all members of a model over the held-out stretches, test then train, all stretches side by side."""
    spec, plan, table = model.spec, Plan.of(model.spec), split.table
    encoded = encode_targets(spec, table.targets())
    y = to_scale(spec.target, encoded) if spec.task == "regression" else encoded
    z = standardise(spec.features, encode_rows(spec.features, table.values()))
    rows = np.concatenate([z, lag_values(spec, table, label_vectors(spec, y), split.delay)], axis=1)
    parts = stretches_of(split)
    longest = max(len(places) for places, _ in parts)
    index = np.stack([np.pad(places, (longest - len(places), 0), mode="edge") for places, _ in parts])  # (N, L)
    first = np.array([longest - len(places) for places, _ in parts])
    lead = first + np.array([lead for _, lead in parts])
    there = np.arange(longest) >= first[:, None]
    inputs = torch.from_numpy(rows[index].astype(np.float32))
    labels = torch.from_numpy(y[index].astype(np.float32))
    mask = torch.from_numpy(there)
    delay = own_delay(table, split.delay)
    state = adaptation.init(plan, model.meta, len(parts))
    said, evidence = [], []
    for row in range(longest + delay):
        if row < longest:
            _, members = adaptation.predict(plan, model.meta, state, inputs[:, row, None])
            said.append(members.mean[:, :-1, 0])
        learned = row - delay
        if learned >= 0:
            at = slice(learned, learned + 1)
            state, seen = adaptation.step(plan, model.meta, state, Rows(inputs[:, at], labels[:, at], mask[:, at]))
            evidence.append(seen.evidence)
    truth = encoded[index][..., 0]
    return Audition(_rows(said), _rows(evidence), truth, there & (np.arange(longest) >= lead[:, None]), delay)


def _rows(parts: Sequence[Tensor]) -> FloatArray:
    return np.asarray(torch.stack(list(parts), dim=1).double().numpy(force=True), dtype=np.float64)


def error_of(spec: ModelSpec, heard: Audition, chosen: Sequence[int], share: float) -> float:
    """Mean absolute error, or log loss, of the chosen members as a committee with a fixed share."""
    said, evidence = heard.said[:, :, chosen], heard.evidence[:, :, chosen]
    weights = np.full((len(said), len(chosen)), 1 / len(chosen))
    served = np.empty((*said.shape[:2], said.shape[-1]))
    values = np.exp(said) if spec.task == "classification" else said
    for row in range(said.shape[1]):
        served[:, row] = (weights[:, :, None] * values[:, row]).sum(1)
        learned = row - heard.delay
        if learned >= 0:
            gained = np.log(weights) + evidence[:, learned]
            posterior = np.exp(gained - gained.max(1, keepdims=True))
            posterior /= posterior.sum(1, keepdims=True)
            weights = (1 - share) * posterior + share / len(chosen)
    if spec.task == "classification":
        likely = np.take_along_axis(served, heard.truth.astype(np.int64)[..., None], -1)[..., 0]
        return float(-np.log(np.clip(likely, 1e-6, 1.0))[heard.scored].mean())
    return float(np.abs(from_scale(spec.target, served)[..., 0] - heard.truth)[heard.scored].mean())


def cast_members(model: Model, split: Split, choices: list[str]) -> Model:
    """Keep the members that the held-out rows ask for, added one by one while the error falls."""
    spec = model.spec
    heard = audition(model, split)
    names = [(e, k) for e, learner in enumerate(Plan.of(spec).learners.values()) for k in range(learner.members)]
    alone = [error_of(spec, heard, [m], SHARES[0]) for m in range(len(names))]
    chosen, best, share = [int(np.argmin(alone))], min(alone), SHARES[0]
    while len(chosen) < min(MEMBERS_MAX, len(names)):
        others = [m for m in range(len(names)) if m not in chosen]
        tried = {(m, s): error_of(spec, heard, [*chosen, m], s) for m in others for s in SHARES}
        (member, found), error = min(tried.items(), key=lambda item: item[1])
        if error > (1 - GAIN_MIN) * best:
            break
        chosen, best, share = [*chosen, member], error, found
    for expert in range(len(spec.experts)):
        own = [m for m, (at, _) in enumerate(names) if at == expert]
        second = min(own, key=lambda m: alone[m])
        if not set(own) & set(chosen) and alone[second] <= HEDGE * min(alone):
            chosen.append(second)
    kept = sorted(chosen)
    measure = "log loss" if spec.task == "classification" else "error"
    described = ", ".join(_described(spec, *names[m], alone[m]) for m in kept)
    choices.append(f"committee: {described}; together {best:.4g} (held-out {measure}), fixed share {share:g}")
    pruned = _pruned(spec, [names[m] for m in kept])
    uses = {expert.name for expert in pruned.experts} | ({PREFIX[:-1]} if pruned.start else set())
    meta = {key: value for key, value in model.meta.items() if key.split(".", 1)[0] in uses}
    return Model(replace(pruned, share=share), meta)


def _described(spec: ModelSpec, expert: int, member: int, error: float) -> str:
    one = spec.experts[expert]
    scales = one.hyper_parameters.get("prior_scales")
    scale = f" (prior variance times {scales[member]:g})" if scales else ""
    return f"{one.name} forgetting in {one.hyper_parameters['tau_rows'][member]:g} rows{scale} {error:.4g}"


def _pruned(spec: ModelSpec, kept: Sequence[tuple[int, int]]) -> ModelSpec:
    """The spec with these (expert, member) pairs alone."""
    experts = []
    for position, expert in enumerate(spec.experts):
        members = [member for at, member in kept if at == position]
        if not members:
            continue
        hyper = dict(expert.hyper_parameters)
        for name in ("tau_rows", "prior_scales"):
            if hyper.get(name):
                hyper[name] = tuple(hyper[name][member] for member in members)
        experts.append(replace(expert, hyper_parameters=hyper))
    start = spec.start if any(expert.on_start for expert in experts) else ""
    return replace(spec, experts=tuple(experts), start=start)
