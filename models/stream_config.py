"""What a client may change for one stream."""

from dataclasses import dataclass, fields, replace
from typing import Any, cast

from models.detectors import DETECTORS
from models.errors import InputError
from models.plan import Plan
from models.types import DetectorChoice, ModelSpec

WINDOW_ROWS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """What a client may change for one stream; None keeps the model's.

    Attributes:
        window_rows: Rows retained for re-adaptation, 1 to 10,000.
        steps: Gradient steps of an adaptation, at most as many as were trained.
        detector: A name of DETECTORS.
        alarms_per_1000: Sensitivity of a likelihood-ratio detector: alarms per 1,000 rows where nothing drifts, > 0.
    """

    window_rows: int | None = None
    steps: int | None = None
    detector: str | None = None
    alarms_per_1000: float | None = None


def configure(spec: ModelSpec, config: StreamConfig) -> ModelSpec:
    """The spec with a stream's configuration applied.

    Raises:
        InputError: A field that the model's experts or detector lack, or a value out of bounds.
    """
    plan = Plan.of(spec)
    adaptable = frozenset[str]().union(*(learner.adaptable for learner in plan.learners.values()))
    for field in ("window_rows", "steps"):
        if getattr(config, field) is not None and field not in adaptable:
            raise InputError(("config", field), f"this model's experts have no {field}; leave it out")
    if config.window_rows is not None:
        if not 1 <= config.window_rows <= WINDOW_ROWS_MAX:
            raise InputError(("config", "window_rows"), f"expected 1 to {WINDOW_ROWS_MAX} rows")
        spec = replace(spec, window_rows=config.window_rows)
    if config.steps is not None:
        spec = _with_steps(spec, config.steps)
    if config.detector is not None and config.detector not in DETECTORS:
        raise InputError(("config", "detector"), f"unknown detector; there are {', '.join(DETECTORS)}")
    if config.detector is not None and config.detector != spec.detector.name:
        spec = replace(spec, detector=DetectorChoice(config.detector))
        Plan.of(spec)
    if config.alarms_per_1000 is not None:
        if "alarms_per_1000" not in {field.name for field in fields(cast("Any", DETECTORS[spec.detector.name]))}:
            raise InputError(("config", "alarms_per_1000"), f"detector {spec.detector.name} has no such setting")
        settings = {**spec.detector.settings, "alarms_per_1000": config.alarms_per_1000}
        spec = replace(spec, detector=DetectorChoice(spec.detector.name, settings))
        Plan.of(spec)
    return spec


def _with_steps(spec: ModelSpec, steps: int) -> ModelSpec:
    experts = []
    for expert in spec.experts:
        trained = expert.hyper_parameters.get("steps")
        if trained is not None and not 1 <= steps <= trained:
            raise InputError(("config", "steps"), f"expected 1 to {trained}, the steps that were trained")
        hyper_parameters = (
            {**expert.hyper_parameters, "steps": steps} if trained is not None else expert.hyper_parameters
        )
        experts.append(replace(expert, hyper_parameters=hyper_parameters))
    return replace(spec, experts=tuple(experts))
