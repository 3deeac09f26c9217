"""Prototypical network: a class is the mean of its embedded rows."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from models.learners.metric import MetricLearner
from models.types import Batch, Tensors


@dataclass(frozen=True)
class ProtoNet(MetricLearner):
    """p(y = c | x) = softmax_c(−scale·‖φ(x) − p_c‖²), with p_c the mean of the class's rows and of its prior.

    p_c = (n_c·μ_c + Σ φ(x_i)) / (n_c + number of rows of c), over the window's rows of class c: the learned prior
    prototype μ_c counts as n_c rows. A stream's own is its prototypes, (C, d).

    Reference:
        Snell, Swersky, Zemel (2017). Prototypical networks for few-shot learning. NeurIPS.
    """

    def support_state(self, meta: Tensors, support: Batch) -> Tensors:
        """``prototypes`` (S, C, d)."""
        phi = self.net.apply(meta, support.x)
        phi = torch.where(support.mask.unsqueeze(-1), phi, 0.0)
        member = one_hot(support.y, self.outputs).to(phi.dtype) * support.mask.unsqueeze(-1)  # (S, B, C)
        prior_rows = self.prior_rows(meta).unsqueeze(-1)  # (C, 1)
        sums = prior_rows * meta["prior"] + member.mT @ phi  # (S, C, d)
        return {"prototypes": sums / (prior_rows + member.sum(1).unsqueeze(-1))}

    def log_probabilities(self, meta: Tensors, state: Tensors, phi: Tensor) -> Tensor:
        """Log softmax of the similarities to the prototypes."""
        return torch.log_softmax(self.similarity(meta, phi, state["prototypes"]), dim=-1)
