"""Candidates run over rows that none has seen, and how well a committee of some of them would have served.

They are mixed as the server would mix them, at the stated label delay.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from models import adaptation, combination, committee
from models.bundle import Model
from models.features import Scales, encode_rows, standardise
from models.memory import Rows
from models.plan import Plan
from models.targets import from_scale, to_scale
from models.tasks.episodes import own_delay
from models.tasks.labels import table_targets
from models.tasks.lags import label_vectors, lag_values
from models.tasks.table import IntArray
from models.training import SEGMENT_ROWS, Split
from models.types import FloatArray, ModelSpec, Predictive

CONTEXT_ROWS = 1024
"""Rows that a stream learns before its held-out stretch, where the table is one long stream."""


class Audition(NamedTuple):
    """What M candidates said of N held-out stretches of L rows each.

    Attributes:
        said: (N, L, M, O) numbers in the learners' scale, or (N, L, M, C) log probabilities, at the time of asking.
        spread: (N, L, M, O) their variances, for numbers.
        served: (N, L, O) or (N, L, C) what the committee said, as ``said``.
        evidence: (N, L, M) log-likelihood of each row under what each member had said, known ``delay`` rows later.
        truth: (N, L) labels, or class indices.
        scored: (N, L) bool.
        delay: Rows of a stream after which a label is known.
    """

    said: FloatArray
    spread: FloatArray
    served: FloatArray
    evidence: FloatArray
    truth: FloatArray
    scored: FloatArray
    delay: int


def stretches_of(split: Split) -> list[tuple[IntArray, int]]:
    """Held-out stretches: indices of rows in time order, and how many of the first only lead in."""
    alone = len(split.judge) == 1
    found = []
    for places in split.judge:
        for start in range(0, len(places), SEGMENT_ROWS):
            lead = np.concatenate([*split.learn, places[:start]])[-CONTEXT_ROWS:] if alone else places[:0]
            found.append((np.concatenate([lead, places[start : start + SEGMENT_ROWS]]), len(lead)))
    return found


@torch.no_grad()
def audition(model: Model, split: Split) -> Audition:
    """Run all members of a model over the held-out stretches, test then train, all stretches side by side."""
    spec, plan, table = model.spec, Plan.of(model.spec), split.table
    encoded = table_targets(spec, table)
    y = to_scale(spec.target, encoded) if spec.task == "regression" else encoded
    z = standardise(Scales.of(spec.features), encode_rows(spec.features, table.values()))
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
    said, spread, served, evidence = [], [], [], []
    for row in range(longest):
        now = slice(row, row + 1)
        told = adaptation.predict(plan, model.meta, state, inputs[:, now])
        said.append(told.members.mean[:, :, 0])
        spread.append(told.members.var[:, :, 0] if spec.task == "regression" else told.members.var)
        served.append(told.served.mean[:, 0])
        at = labels[:, now] if spec.task == "regression" else labels[:, now, 0].to(torch.int64)
        evidence.append(combination.evidence_of(spec, told, at, mask[:, now]))
        if row >= delay:
            late = slice(row - delay, row - delay + 1)
            state, _ = adaptation.step(plan, model.meta, state, Rows(inputs[:, late], labels[:, late], mask[:, late]))
    scored = there & (np.arange(longest) >= lead[:, None])
    truth = encoded[index][..., 0]
    return Audition(_rows(said), _rows(spread), _rows(served), _rows(evidence), truth, scored, delay)


def _rows(parts: Sequence[Tensor]) -> FloatArray:
    return np.asarray(torch.stack(list(parts), dim=1).double().numpy(force=True), dtype=np.float64)


def error_of(spec: ModelSpec, heard: Audition, chosen: Sequence[int], share: float) -> float:
    """Mean absolute error, or log loss, of the chosen members as a committee with a fixed share."""
    weights = _weights(spec, heard, chosen, share)
    said = heard.said[:, :, chosen]
    values = np.exp(said) if spec.task == "classification" else said
    return served_error(spec, heard, (weights[..., None] * values).sum(2))


def _weights(spec: ModelSpec, heard: Audition, chosen: Sequence[int], share: float) -> FloatArray:
    """(N, L, members) weights with which each row would have been served."""
    evidence = combination.learning_rate(spec) * heard.evidence[:, :, chosen]
    share *= combination.learning_rate(spec) ** 2
    now = np.full((len(evidence), len(chosen)), 1 / len(chosen))
    weights = np.empty(evidence.shape)
    for row in range(evidence.shape[1]):
        weights[:, row] = now
        if row >= heard.delay:
            gained = np.log(now) + evidence[:, row - heard.delay]
            posterior = np.exp(gained - gained.max(1, keepdims=True))
            posterior /= posterior.sum(1, keepdims=True)
            now = (1 - share) * posterior + share / len(chosen)
    return weights


@torch.no_grad()
def stacked_error(spec: ModelSpec, heard: Audition, chosen: Sequence[int], share: float) -> float:
    """The same with what ``combination`` learns on top of the mixture."""
    spec = replace(spec, stacked=True)
    weights = torch.from_numpy(_weights(spec, heard, chosen, share)).log().float()
    said, spread = torch.from_numpy(heard.said[:, :, chosen]).float(), torch.zeros(0)
    if spec.task == "regression":
        spread = torch.from_numpy(heard.spread[:, :, chosen]).float()
    truth = to_scale(spec.target, heard.truth[..., None]) if spec.task == "regression" else heard.truth
    y = torch.from_numpy(truth)
    y = y.float() if spec.task == "regression" else y.to(torch.int64)
    mask = torch.from_numpy(heard.scored)
    state = combination.init_combination(spec, len(said), len(chosen))
    state["weights"] = committee.init_weights(len(said), len(chosen))  # those that count are known already
    told, served = [], []
    for row in range(said.shape[1]):
        live = Predictive(said[:, row, :, None], spread[:, row, :, None] if spec.task == "regression" else spread)
        mixture = committee.mixed(spec.task, live, weights[:, row])
        told.append(combination.say(spec, state, live, mixture))
        served.append(told[-1].served.mean[:, 0])
        late = row - heard.delay
        if late >= 0:
            state |= combination.learn(spec, state, told[late], y[:, late, None], mask[:, late, None])
    found = _rows(served)
    return served_error(spec, heard, np.exp(found) if spec.task == "classification" else found)


def served_error(spec: ModelSpec, heard: Audition, served: FloatArray) -> float:
    """Mean absolute error of numbers (N, L, O), or log loss of probabilities (N, L, C), over the scored rows."""
    if spec.task == "classification":
        likely = np.take_along_axis(served, heard.truth.astype(np.int64)[..., None], -1)[..., 0]
        return float(-np.log(np.clip(likely, 1e-6, 1.0))[heard.scored].mean())
    return float(np.abs(from_scale(spec.target, served)[..., 0] - heard.truth)[heard.scored].mean())
