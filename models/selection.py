"""What ``auto`` chooses by short runs on the held-out rows: the target's transform and the lagged targets."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from models.tasks.episodes import fit_target, likely_power, own_delay, season_rows
from models.training import CLEARLY, Follow, Interrupted, Split, TrainSettings, fit, judge, part_of
from models.types import Expert, Lags, ModelSpec, StartKind

LAG_RATES = (0.1, 0.02)
"""Rates, per row, of the means of known labels that become inputs."""
PROBE_ITERATIONS = 100
"""Iterations of a short run."""
PROBE_SHARE = 0.1
"""Most of the budget that one of these may take."""
QUADRATIC_MAX = 16
"""Most numeric features whose products become features of the head without a network."""
LINEAR_MEMBERS = tuple((tau, scale) for tau in (300.0, 3000.0, 20_000.0) for scale in (0.1, 1.0, 10.0, 100.0))
"""Forgetting time, in rows, and scale of the prior's variance of the members that heads without a network try."""
KERNEL_FEATURES = 192
"""Random features of the head that is a Gaussian process."""
KERNEL_MEMBERS = ((3000.0, 1.0), (3000.0, 10.0), (20_000.0, 10.0), (20_000.0, 100.0))
DELAYS_MIN = 10.0
"""A member remembers for this many label delays at least: what it learns is that old when it serves."""


def choose_target(
    spec: ModelSpec, split: Split, settings: TrainSettings, seconds: float, choices: list[str], progress: Follow
) -> ModelSpec:
    """Whether a numeric target is learned through a power transform."""
    if spec.task == "classification":
        return spec
    power = likely_power(np.asarray(split.table.target, dtype=np.float64))
    if power == 1.0:
        return spec
    options = {"as it is": spec, f"Yeo-Johnson {power:g}": replace(spec, target=fit_target(split.table, power))}
    return _tournament("target", options, split, settings, seconds, choices, part_of(progress, 0.0, 0.15, "target"))


def choose_lags(
    spec: ModelSpec, split: Split, settings: TrainSettings, seconds: float, choices: list[str], progress: Follow
) -> ModelSpec:
    """Which of the last known labels become inputs."""
    if settings.lag_target != "auto":
        choices.append(f"lagged targets: {settings.lag_target}, as stated")
        return spec
    options = {"none": replace(spec, lags=Lags()), "the last two and their means": spec}
    season = season_rows(split.table)
    waiting = own_delay(split.table, settings.delay)
    if season is not None:
        offset = season * (waiting // season + 1) - waiting
        if offset not in spec.lags.offsets:
            lags = Lags((*spec.lags.offsets, offset), LAG_RATES)
            options[f"and the one {season} rows before"] = replace(spec, lags=lags)
    return _tournament(
        "lagged targets", options, split, settings, seconds, choices, part_of(progress, 0.15, 0.3, "lags")
    )


def candidates(spec: ModelSpec, start: StartKind) -> ModelSpec:
    """The spec with every expert that may join the committee: heads without a network, on a frozen start too."""
    (first,) = spec.experts
    delay = first.hyper_parameters["delay_rows"]
    taus = first.hyper_parameters["tau_rows"]
    long = tuple(tau for tau in taus if tau >= DELAYS_MIN * delay) or (max(taus),)
    first = replace(first, hyper_parameters={**first.hyper_parameters, "tau_rows": long})
    numeric = sum(feature.kind == "numeric" for feature in spec.features)
    hyper = {
        "hidden": (),
        "quadratic": numeric if numeric <= QUADRATIC_MAX else 0,
        "delay_rows": delay,
        **_members(LINEAR_MEMBERS, delay),
        "archive_segments": first.hyper_parameters.get("archive_segments", 0),
    }
    linear = Expert("linear", first.learner, hyper)
    waves = {"random_features": KERNEL_FEATURES, "quadratic": 0}
    kernel = Expert("kernel", first.learner, {**hyper, **waves, **_members(KERNEL_MEMBERS, delay)})
    if not start:
        return replace(spec, experts=(first, linear, kernel))
    name = "trees" if start == "boosted_trees" else "tabular"
    on_start = Expert(name, first.learner, {**hyper, "start_columns": spec.outputs}, on_start=True)
    return replace(spec, start=start, experts=(first, linear, kernel, on_start))


def _members(candidates: Sequence[tuple[float, float]], delay: float) -> Mapping[str, Sequence[float]]:
    """Forgetting times and prior scales of those that remember long enough for the delay, or of the longest."""
    longest = max(tau for tau, _ in candidates)
    able = [each for each in candidates if each[0] >= min(DELAYS_MIN * delay, longest)]
    return {"tau_rows": [tau for tau, _ in able], "prior_scales": [scale for _, scale in able]}


def _tournament(
    what: str,
    options: Mapping[str, ModelSpec],
    split: Split,
    settings: TrainSettings,
    seconds: float,
    choices: list[str],
    progress: Follow,
) -> ModelSpec:
    """A short run of every option; a later one wins only if it is clearly better.

    Options are compared by the mean absolute error, or for classes by the log loss: it takes far fewer rows than the
    accuracy to tell two apart.
    """
    errors: dict[str, float] = {}
    for position, (name, spec) in enumerate(options.items()):
        follow = part_of(progress, position / len(options), (position + 1) / len(options), f"{what}: {name}")
        fitted = fit(spec, split, settings, PROBE_SHARE * seconds, PROBE_ITERATIONS, follow)
        shown = judge(fitted.model, split).adapted
        errors[name] = float((shown.loss if spec.task == "classification" else shown.score).mean())
        if fitted.interrupted:
            raise Interrupted(fitted.model)
    best = next(iter(options))
    for name, error in errors.items():
        if error < (1 - CLEARLY) * errors[best]:
            best = name
    measure = "log loss" if options[best].task == "classification" else "error"
    listed = ", ".join(f"{name} {error:.4g}" for name, error in errors.items())
    choices.append(f"{what}: {best} (held-out {measure} after a short run: {listed})")
    return options[best]
