"""Reptile: move the initialization towards where a few steps on each task lead."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from models.learners.gradient import GradientLearner
from models.types import Batch, Episode, Tensors


@dataclass(frozen=True)
class Reptile(GradientLearner):
    """Outer direction θ − mean over tasks of θ_k, with θ_k after ``steps`` inner steps, each on other rows of the task.

    In meta-training all rows of a task are dealt out to the steps, support and query alike: that the steps see
    different rows is what makes the direction more than that of joint training. There are no second derivatives,
    whatever ``first_order`` says. Serving is the other gradient learners'.

    Attributes:
        inner_lr: Rate of the inner steps.
        steps: Inner steps k, in meta-training and when serving. With 1 this is joint training.

    Reference:
        Nichol, Achiam, Schulman (2018). On first-order meta-learning algorithms. arXiv 1803.02999.
    """

    inner_lr: float = 0.02
    steps: int = 5

    def rates_init(self) -> Tensors:
        """Nothing is learned about the rate: the outer direction has no gradient for it."""
        return {}

    def rates(self, meta: Tensors, step: int) -> Mapping[str, Tensor]:  # noqa: ARG002  # the same at every step
        """``inner_lr`` for all."""
        return dict.fromkeys(self.fast_names, torch.tensor(self.inner_lr, dtype=meta["bias_0"].dtype))

    @torch.no_grad()
    def target(self, meta: Tensors, episode: Episode) -> Tensors:
        """θ_k of each task, (T, …) each: after step j on every k-th row of support and query from the j-th on."""
        parts = zip(episode.support, episode.query, strict=True)
        rows = Batch(*(torch.cat([support, query], dim=1) for support, query in parts))
        turn = (rows.mask.cumsum(1) - 1) % max(1, self.steps)  # (T, B) which step learns the row
        batches = [rows._replace(mask=rows.mask & (turn == step)) for step in range(self.steps)]
        *_, last = self._path(meta, rows.x.shape[0], batches, differentiable=False)
        return last

    def judged(self, meta: Tensors, episode: Episode, progress: float) -> tuple[Tensor, Tensors]:
        """The value is the query loss after adapting to the supports, the gradient Reptile's direction.

        So meta-validation can compare: ½‖θ − θ_k‖² itself is least where nothing is learned.
        """
        with torch.no_grad():
            loss, adapted = super().judged(meta, episode, progress)
        target = self.target(meta, episode)
        gaps = [0.5 * (meta[name] - goal).square().flatten(1).sum(1) for name, goal in target.items()]
        direction = torch.stack(gaps).sum(0).mean()  # the gradient of ½‖θ − θ_k‖², mean over tasks
        return loss + direction - direction.detach(), adapted
