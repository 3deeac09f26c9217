"""Matching network: a class is as likely as the attention that its rows get."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

from models.learners.metric import MetricLearner
from models.types import Batch, Tensors

_NEVER = -1e30  # finite in place of log 0, whose gradient is not a number


@dataclass(frozen=True)
class MatchingNet(MetricLearner):
    """p(y = c | x) = Σ_i a(x, x_i) [y_i = c], with attention a = softmax_i(−scale·‖φ(x) − φ(x_i)‖²).

    Over the last rows of the window, and over the prior prototype of each class, which counts as n_c rows at its
    place. A stream's own is its embedded rows with their labels. Rows are embedded each on its own, without the
    paper's full context embeddings.

    Attributes:
        memory_rows: Rows kept, at most; of a longer window, the last.

    Reference:
        Vinyals, Blundell, Lillicrap, Kavukcuoglu, Wierstra (2016). Matching networks for one shot learning. NeurIPS.
    """

    memory_rows: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memory_rows < 1:
            raise ValueError(f"memory_rows must be 1 or more, got {self.memory_rows}")

    def support_state(self, meta: Tensors, support: Batch) -> Tensors:
        """``keys`` (S, R, d), ``labels`` (S, R) and the number of ``rows`` (S,), newest last, empty places first."""
        order = support.mask.to(torch.int8).argsort(dim=1, stable=True)[:, -self.memory_rows :]  # (S, ≤ R)
        x = support.x.gather(1, order.unsqueeze(-1).expand(-1, -1, self.inputs))
        there = support.mask.gather(1, order)
        keys = torch.where(there.unsqueeze(-1), self.net.apply(meta, x), 0.0)
        labels = torch.where(there, support.y.gather(1, order), 0)
        empty = self.memory_rows - order.shape[1]
        return {
            "keys": pad(keys, (0, 0, empty, 0)),
            "labels": pad(labels, (empty, 0)),
            "rows": there.sum(1),
        }

    def log_probabilities(self, meta: Tensors, state: Tensors, phi: Tensor) -> Tensor:
        """Log of the attention that each class's rows get together."""
        place = torch.arange(self.memory_rows, 0, -1, device=phi.device)  # 1 is the newest
        there = (place <= state["rows"].unsqueeze(-1)).unsqueeze(1)  # (S, 1, R)
        logits = torch.where(there, self.similarity(meta, phi, state["keys"]), _NEVER)  # (S, B, R)
        top = logits.detach().amax(dim=-1, keepdim=True)
        weights = torch.where(there, (logits - top).exp(), 0.0)
        sums = weights @ one_hot(state["labels"], self.outputs).to(phi.dtype)  # (S, B, C)
        seen = sums > 0
        own = torch.where(seen, torch.where(seen, sums, 1.0).log() + top, _NEVER)
        prior = self.similarity(meta, phi, meta["prior"]) + self.prior_rows(meta).log()
        return torch.log_softmax(torch.logaddexp(own, prior), dim=-1)
