"""MAML: an initialization from which a few plain gradient steps reach a task."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from models.learners.gradient import GradientLearner, bounded_rate
from models.types import Tensors


@dataclass(frozen=True)
class Maml(GradientLearner):
    """One fixed rate for all inner steps, or learned rates for each layer and step.

    Attributes:
        per_step_rates: Learn a rate for each step and layer (MAML++'s LSLR), within a factor of e³ of ``inner_lr``.

    References:
        Finn, Abbeel, Levine (2017). Model-agnostic meta-learning for fast adaptation of deep networks. ICML.
        Antoniou, Edwards, Storkey (2019). How to train your MAML. ICLR.
    """

    per_step_rates: bool = False

    def rates_init(self) -> Tensors:
        """``free_rates`` (steps, layers), where the rates are learned."""
        return {"free_rates": torch.zeros(max(1, self.steps), self.network.layers)} if self.per_step_rates else {}

    def rates(self, meta: Tensors, step: int) -> Mapping[str, Tensor]:
        """A number for each tensor; past the trained steps, the last step's."""
        names = self.network.names
        if not self.per_step_rates:
            return dict.fromkeys(names, torch.tensor(self.inner_lr, dtype=meta["bias_0"].dtype))
        free = meta["free_rates"]
        rate = bounded_rate(self.inner_lr, free[min(step, free.shape[0] - 1)])  # (layers,)
        return {name: rate[index // 2] for index, name in enumerate(names)}  # weight and bias of a layer share it
