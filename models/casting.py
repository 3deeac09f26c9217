"""Which members a committee keeps: the candidates run over held-out rows, and a greedy choice among them.

Every candidate is trained; here their predictions on rows that none has seen are mixed as the server would mix them, at
the stated label delay, and only those stay whose presence lowers the error.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from models import adaptation, combination, committee
from models.bundle import Model
from models.combination import evidence_of
from models.features import Scales, encode_rows, standardise
from models.learners import KeepsPosteriors, Learner
from models.memory import Rows
from models.plan import Plan
from models.start import PREFIX
from models.targets import from_scale, to_scale
from models.tasks.episodes import own_delay
from models.tasks.labels import table_targets
from models.tasks.lags import label_vectors, lag_values
from models.tasks.table import IntArray
from models.training import SEGMENT_ROWS, Split, by_stream, segments_of
from models.types import FloatArray, ModelSpec, Predictive

CONTEXT_ROWS = 1024
"""Rows that a stream learns before its held-out stretch, where the table is one long stream."""
SHARES = (0.01, 0.001)
"""Fixed shares that are tried."""
GAIN_MIN = 0.003
"""A further member must lower the error by this share of it."""
ASKED_FOR_MAX = 6
MEMBERS_MAX = 16
NUMBERS_MAX = 400_000
"""Most numbers of a stream's state that all members take together: 1.6 MB in float32."""
HEDGE = 3.0
"""A member that is not asked for may stay if its error is at most this many times the least."""
STACK_WORSE_MAX = 1.01
"""The correction stays unless it makes the held-out error worse by more than this factor: later rows teach it more."""
COLD_ROWS = 20
"""Rows of a piece that says whom to believe at first."""
EVEN_PIECES = 20
"""Pieces that speak for all members alike: later rows differ from the held-out ones."""
EM_ROUNDS = 50


class Audition(NamedTuple):
    """What M candidates said of N held-out stretches of L rows each.

    Attributes:
        said: (N, L, M, O) numbers in the learners' scale, or (N, L, M, C) log probabilities, at the time of asking.
        spread: (N, L, M, O) their variances, for numbers.
        evidence: (N, L, M) log-likelihood of each row under what each member had said, known ``delay`` rows later.
        truth: (N, L) labels, or class indices.
        scored: (N, L) bool.
        delay: Rows of a stream after which a label is known.
    """

    said: FloatArray
    spread: FloatArray
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
    said, spread, evidence = [], [], []
    for row in range(longest):
        now = slice(row, row + 1)
        told = adaptation.predict(plan, model.meta, state, inputs[:, now])
        said.append(told.members.mean[:, :, 0])
        spread.append(told.members.var[:, :, 0] if spec.task == "regression" else told.members.var)
        at = labels[:, now] if spec.task == "regression" else labels[:, now, 0].to(torch.int64)
        evidence.append(evidence_of(spec, told, at, mask[:, now]))
        if row >= delay:
            late = slice(row - delay, row - delay + 1)
            state, _ = adaptation.step(plan, model.meta, state, Rows(inputs[:, late], labels[:, late], mask[:, late]))
    scored = there & (np.arange(longest) >= lead[:, None])
    return Audition(_rows(said), _rows(spread), _rows(evidence), encoded[index][..., 0], scored, delay)


def _rows(parts: Sequence[Tensor]) -> FloatArray:
    return np.asarray(torch.stack(list(parts), dim=1).double().numpy(force=True), dtype=np.float64)


def error_of(spec: ModelSpec, heard: Audition, chosen: Sequence[int], share: float) -> float:
    """Mean absolute error, or log loss, of the chosen members as a committee with a fixed share."""
    weights = _weights(spec, heard, chosen, share)
    said = heard.said[:, :, chosen]
    values = np.exp(said) if spec.task == "classification" else said
    return _error(spec, heard, (weights[..., None] * values).sum(2))


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
    return _error(spec, heard, np.exp(found) if spec.task == "classification" else found)


def _error(spec: ModelSpec, heard: Audition, served: FloatArray) -> float:
    if spec.task == "classification":
        likely = np.take_along_axis(served, heard.truth.astype(np.int64)[..., None], -1)[..., 0]
        return float(-np.log(np.clip(likely, 1e-6, 1.0))[heard.scored].mean())
    return float(np.abs(from_scale(spec.target, served)[..., 0] - heard.truth)[heard.scored].mean())


def cast_members(model: Model, split: Split, choices: list[str]) -> Model:
    """Keep the members that the held-out rows ask for, and others as a hedge while there is room.

    Members are added one by one while the error falls. What is best on the held-out rows need not be best later, and
    online weights can tell then: so experts take turns to add their next best member.
    """
    spec = model.spec
    heard = audition(model, split)
    learners = list(Plan.of(spec).learners.values())
    names = [(e, k) for e, learner in enumerate(learners) for k in range(learner.members)]
    alone = [error_of(spec, heard, [m], SHARES[0]) for m in range(len(names))]
    chosen = _asked_for(spec, heard, alone)
    sizes = [_numbers(learners[expert]) for expert, _ in names]
    kept = sorted(_hedged(chosen, alone, [expert for expert, _ in names], sizes))
    plain = {share: error_of(spec, heard, kept, share) for share in SHARES}
    corrected = {share: stacked_error(spec, heard, kept, share) for share in SHARES}
    share = min(SHARES, key=lambda each: corrected[each])
    weights = cold_weights(model, split, kept)
    measure = "log loss" if spec.task == "classification" else "error"
    described = "; ".join(
        f"{_described(spec, *names[m], alone[m])}, first weight {weight:.2g}"
        for m, weight in zip(kept, weights, strict=True)
    )
    choices.append(f"committee: {described}; together {plain[share]:.4g} (held-out {measure}), fixed share {share:g}")
    stacked = corrected[share] <= STACK_WORSE_MAX * plain[share]
    choices.append(f"stacked: {'yes' if stacked else 'no'} (held-out {measure} with correction {corrected[share]:.4g})")
    pruned = _pruned(spec, [names[m] for m in kept])
    uses = {expert.name for expert in pruned.experts} | ({PREFIX[:-1]} if pruned.start else set())
    meta = {key: value for key, value in model.meta.items() if key.split(".", 1)[0] in uses}
    return Model(replace(pruned, share=share, stacked=stacked, weights=weights), meta)


def _asked_for(spec: ModelSpec, heard: Audition, alone: Sequence[float]) -> list[int]:
    """Members by greedy choice: each the one that lowers the committee's error most, while one does."""
    chosen, best = [int(np.argmin(alone))], min(alone)
    while len(chosen) < min(ASKED_FOR_MAX, len(alone)):
        others = [m for m in range(len(alone)) if m not in chosen]
        tried = {(m, s): error_of(spec, heard, [*chosen, m], s) for m in others for s in SHARES}
        (member, _), error = min(tried.items(), key=lambda item: item[1])
        if error > (1 - GAIN_MIN) * best:
            break
        chosen, best = [*chosen, member], error
    return chosen


def _hedged(
    chosen: Sequence[int], alone: Sequence[float], experts: Sequence[int], sizes: Sequence[int]
) -> Sequence[int]:
    """The chosen and, expert by expert in turn, the next best of the others that the limits leave room for."""
    kept = list(chosen)
    waiting = [m for m in np.argsort(alone).tolist() if m not in kept and alone[m] <= HEDGE * min(alone)]
    while waiting and len(kept) < MEMBERS_MAX:
        turns = [sum(experts[m] == experts[other] for other in kept) for m in waiting]
        member = waiting.pop(turns.index(min(turns)))
        if sum(sizes[m] for m in [*kept, member]) <= NUMBERS_MAX:
            kept.append(member)
    return kept


def _numbers(learner: Learner) -> int:
    """Numbers of a stream's state that one member takes."""
    return learner.stream_numbers if isinstance(learner, KeepsPosteriors) else 0


@torch.no_grad()
def cold_weights(model: Model, split: Split, kept: Sequence[int]) -> tuple[float, ...]:
    """How much to believe each member before a stream has shown anything.

    The held-out rows are cut into short pieces, each of which starts cold; the weights are those of a mixture of
    members that makes all pieces likeliest (expectation maximisation, with further pieces spread evenly). Neighbouring
    rows say much the same: a piece of n counts as √n.
    """
    spec, pieces = replace(model.spec, weights=()), segments_of(split.segments, COLD_ROWS)
    cold = split._replace(table=pieces, learn=[], judge=by_stream(pieces))
    heard = audition(Model(spec, model.meta), cold)
    likely = np.where(heard.scored[..., None], heard.evidence[..., kept], 0.0).sum(1) / math.sqrt(COLD_ROWS)
    weights = np.full(len(kept), 1 / len(kept))
    for _ in range(EM_ROUNDS):
        posterior = weights * np.exp(likely - likely.max(1, keepdims=True))
        posterior /= posterior.sum(1, keepdims=True)
        weights = (posterior.sum(0) + EVEN_PIECES / len(kept)) / (len(posterior) + EVEN_PIECES)
    return tuple(float(each) for each in weights)


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
