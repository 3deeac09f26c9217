"""Which members a committee keeps: the candidates run over held-out rows, and a greedy choice among them.

Every candidate is trained; those stay whose presence lowers the error on rows that none has seen, and a few as a hedge.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from models.audition import Audition, audition, error_of, stacked_error
from models.bundle import Model
from models.coldstart import COLD_ROWS, COLD_SHARES, cold_error, cold_split, cold_weights
from models.learners import KeepsPosteriors, Learner
from models.plan import Plan
from models.start import PREFIX
from models.training import Split
from models.types import ModelSpec

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
    cold = cold_split(split)
    weights = cold_weights(model, cold, kept)
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
    found = Model(replace(pruned, share=share, stacked=stacked, weights=weights), meta)
    first = {part: cold_error(found, cold, part) for part in COLD_SHARES}
    steady = min(COLD_SHARES, key=lambda part: first[part])
    listed = ", ".join(f"{part:g} {error:.4g}" for part, error in first.items())
    choices.append(
        f"share of the frozen start after one row: {steady:g} (held-out {measure} in {COLD_ROWS} first rows: {listed})"
    )
    return found._replace(spec=replace(found.spec, cold_share=steady))


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
