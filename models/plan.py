"""A model's moving parts, built once from its spec."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from models.detectors import DETECTORS, Detector, WeighsHypotheses
from models.errors import InputError
from models.features import input_width, start_columns
from models.learners import LEARNERS, NEVER_ROWS, KeepsPosteriors, Learner
from models.types import ModelSpec

KEEPERS_SHARE = 0.2
"""Weight, after an alarm, of the members that it leaves as they are: a false alarm costs log 5 nats at most."""


@dataclass(frozen=True)
class Plan:
    """A model's moving parts, built once from its spec: what ``step`` needs beside tensors.

    Attributes:
        spec: The model.
        learners: By the name of their expert.
        detector: The drift detector.
        posteriors: Those of the learners whose members can take one another's place.
    """

    spec: ModelSpec
    learners: Mapping[str, Learner]
    detector: Detector
    posteriors: Mapping[str, KeepsPosteriors]

    @classmethod
    def of(cls, spec: ModelSpec) -> "Plan":
        """Look up the spec's learners and detector in their tables.

        Raises:
            InputError: The detector weighs hypotheses, which the experts cannot be.
        """
        width = {False: input_width(spec) - start_columns(spec), True: input_width(spec)}
        learners: Mapping[str, Learner] = {
            expert.name: LEARNERS[expert.learner](
                task=spec.task,
                inputs=width[expert.on_start],
                outputs=spec.outputs,
                **expert.hyper_parameters,
            )
            for expert in spec.experts
        }
        learners = _keeping(learners)
        detector = DETECTORS[spec.detector.name](**spec.detector.settings)
        if isinstance(detector, WeighsHypotheses):
            learners = _hypotheses(spec, learners, detector.hypotheses)
        posteriors = {name: one for name, one in learners.items() if isinstance(one, KeepsPosteriors)}
        return cls(spec, learners, detector, posteriors)

    @cached_property
    def keeps_window(self) -> bool:
        """Whether a stream retains rows: not where every re-adaptation takes over a challenger."""
        if self.weighs_hypotheses:
            return False
        return not (self.detector.compares_challenger and all(one.keeps_challenger for one in self.learners.values()))

    @cached_property
    def can_start_anew(self) -> bool:
        """Whether a fresh start is something else than the first expert's challenger."""
        return next(iter(self.learners)) in self.posteriors

    @cached_property
    def weighs_hypotheses(self) -> bool:
        """Whether the detector's belief over the members is what is served."""
        return isinstance(self.detector, WeighsHypotheses)

    @cached_property
    def members(self) -> int:
        """Live members of all experts together."""
        return sum(learner.members for learner in self.learners.values())

    @cached_property
    def after_alarm(self) -> tuple[float, ...]:
        """Weights of the live members after an alarm: those that took over share what those that stayed leave."""
        stayed: list[bool] = []
        for learner in self.learners.values():
            keeps = learner.keeps if isinstance(learner, KeepsPosteriors) else ()
            stayed += [member in keeps for member in range(learner.members)]
        took = len(stayed) - sum(stayed)
        rest = KEEPERS_SHARE if sum(stayed) else 0.0
        return tuple(rest / sum(stayed) if each else (1 - rest) / took for each in stayed)


def _keeping(learners: Mapping[str, Learner]) -> Mapping[str, Learner]:
    """Learners whose slowest members, of all that forget at a rate, stay as they are in an alarm.

    An alarm may be false, and what took 20,000 rows to learn is not learned again from twenty. Where all forget at
    the same rate, one of them takes over.
    """
    forgetting = {name: one for name, one in learners.items() if isinstance(one, KeepsPosteriors)}
    taus = [(name, at, tau) for name, one in forgetting.items() for at, tau in enumerate(one.tau_rows)]
    if len(taus) < 2:  # noqa: PLR2004 - the only one has to take over
        return learners
    taus = [each for each in taus if each[2] < NEVER_ROWS] or taus
    longest = max(tau for _, _, tau in taus)
    if all(tau == longest for _, _, tau in taus):
        taus = taus[1:]
    found: dict[str, list[int]] = {}
    for name, at, tau in taus:
        if tau == longest:
            found.setdefault(name, []).append(at)
    return {**learners, **{name: forgetting[name].keeping(places) for name, places in found.items()}}


def _hypotheses(spec: ModelSpec, learners: Mapping[str, Learner], count: int) -> Mapping[str, Learner]:
    """The one expert with a member for each hypothesis; its challenger is the fresh one."""
    able = {name: one.holding(count - 1) for name, one in learners.items() if isinstance(one, KeepsPosteriors)}
    if len(able) != 1 or len(learners) != 1:
        experts = ", ".join(f"{expert.name} ({expert.learner})" for expert in spec.experts)
        raise InputError(
            ("config", "detector"),
            f"{spec.detector.name} weighs posteriors of one expert that starts anew with any batch (a Bayesian head), "
            f"this model serves {experts}; choose another detector",
        )
    return able
