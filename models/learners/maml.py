"""MAML: an initialization from which a few plain gradient steps reach a task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from models.learners.bounded import bounded
from models.learners.gradient import GradientLearner
from models.types import Episode, Tensors

_LEAST_SHARE = 0.03
"""While every step is judged, an early one has at least this share of an even weight."""


@dataclass(frozen=True)
class Maml(GradientLearner):
    """One fixed rate for all inner steps, or learned rates for each layer and step.

    With ``first_order`` it is FOMAML. Two annealings of MAML++ help several inner steps to be learned: early in
    meta-training the queries are judged after every step, and the meta-gradient is of first order.

    Attributes:
        per_step_rates: Learn a rate for each step and layer (MAML++'s LSLR), within a factor of e³ of ``inner_lr``.
        multi_step_until: Fraction of meta-training in which the query losses after all steps count, evenly at first
            and at its end nearly the last alone (MAML++'s multi-step loss); 0 leaves it out.
        first_order_until: Fraction of meta-training that leaves second derivatives out (MAML++'s derivative-order
            annealing); 0 leaves none out.

    References:
        Finn, Abbeel, Levine (2017). Model-agnostic meta-learning for fast adaptation of deep networks. ICML.
        Antoniou, Edwards, Storkey (2019). How to train your MAML. ICLR.
    """

    per_step_rates: bool = False
    multi_step_until: float = 0.0
    first_order_until: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("multi_step_until", "first_order_until"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be a fraction of meta-training, 0 to 1, got {getattr(self, name)}")

    def rates_init(self) -> Tensors:
        """``free_rates`` (steps, layers that are adapted), where the rates are learned."""
        layers = (len(self.fast_names) + 1) // 2
        return {"free_rates": torch.zeros(max(1, self.steps), layers)} if self.per_step_rates else {}

    def rates(self, meta: Tensors, step: int) -> Mapping[str, Tensor]:
        """A number for each tensor; past the trained steps, the last step's."""
        names = self.fast_names
        if not self.per_step_rates:
            return dict.fromkeys(names, torch.tensor(self.inner_lr, dtype=meta["bias_0"].dtype))
        free = meta["free_rates"]
        rate = bounded(self.inner_lr, free[min(step, free.shape[0] - 1)])  # (layers,)
        return {name: rate[index // 2] for index, name in enumerate(names)}  # weight and bias of a layer share it

    def step_weights(self, progress: float) -> Sequence[float]:
        """Weights v_j of the query losses after steps 1 to N; they sum to one.

        v_j = max((1 − d)/N, 0.03/N) for j < N, with d the share of ``multi_step_until`` that is done; the last step
        has the rest.
        """
        steps = self.steps
        if progress >= self.multi_step_until or steps <= 1:
            return (1.0,)
        early = max(1.0 - progress / self.multi_step_until, _LEAST_SHARE) / steps
        return (*[early] * (steps - 1), 1.0 - early * (steps - 1))

    def judged(self, meta: Tensors, episode: Episode, progress: float) -> tuple[Tensor, Tensors]:
        """As its kin, of first order for as long as ``first_order_until`` says."""
        if progress < self.first_order_until and not self.first_order:
            return replace(self, first_order=True).judged(meta, episode, progress)
        return super().judged(meta, episode, progress)
