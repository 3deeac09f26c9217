"""Tiny gradient learners in float64, and their outer gradients, exact and by differences."""

import torch
from torch import Tensor

from models.learners.anil import Anil
from models.learners.cavia import Cavia
from models.learners.gradient import GradientLearner
from models.learners.maml import Maml
from models.learners.meta_sgd import MetaSgd
from models.params import flatten, unflatten
from models.tasks.sinusoid import Sinusoid, SinusoidEpisodes
from models.types import Batch, Episode, Tensors

MAML_3 = Maml("regression", 1, 1, hidden=(4, 3), activation="tanh", inner_lr=0.05, steps=3)
TINY: dict[str, GradientLearner] = {
    "maml": Maml("regression", 1, 1, hidden=(4, 3), activation="tanh", inner_lr=0.05),
    "maml, 3 steps": MAML_3,
    "maml, learned rates": Maml(
        "regression", 1, 1, hidden=(4, 3), activation="tanh", inner_lr=0.05, steps=3, per_step_rates=True
    ),
    "maml, clipped": Maml("regression", 1, 1, hidden=(4, 3), activation="tanh", steps=2, gradient_clip=0.5),
    "meta-sgd": MetaSgd("regression", 1, 1, hidden=(4, 3), activation="tanh", steps=2),
    "anil": Anil("regression", 1, 1, hidden=(4, 3), activation="tanh", inner_lr=0.1, steps=3, per_step_rates=True),
    "cavia": Cavia("regression", 1, 1, hidden=(4, 3), activation="tanh", steps=2, context=2),
    "maml, classes": Maml("classification", 1, 3, hidden=(4,), activation="tanh", inner_lr=0.3, steps=2),
    "meta-sgd, classes": MetaSgd("classification", 1, 3, hidden=(4,), activation="tanh", inner_lr=0.3, steps=2),
}


def double(batch: Batch) -> Batch:
    """The same rows in float64."""
    y = batch.y.double() if batch.y.is_floating_point() else batch.y
    return Batch(batch.x.double(), y, batch.mask)


def tiny_episode(learner: GradientLearner) -> Episode:
    """Three float64 tasks, supports of 2 to 5 rows."""
    episode = SinusoidEpisodes(tasks=3, support=(2, 5), query=4)(torch.Generator().manual_seed(1))
    if learner.task == "classification":
        episode = Episode(*(batch._replace(y=(batch.y[..., 0] > 0).long() + 1) for batch in episode))
    return Episode(*(double(batch) for batch in episode))


def tiny_point(learner: GradientLearner) -> tuple[Tensor, Tensors]:
    """Learned tensors in float64, off their symmetric start, as a vector and by name."""
    generator = torch.Generator().manual_seed(2)
    meta = {name: tensor.double() for name, tensor in learner.meta_init(generator).items()}
    vector, _ = flatten(meta)
    return vector + 0.1 * torch.randn(vector.shape, generator=generator).double(), meta


def outer_gradients(learner: GradientLearner, progress: float) -> tuple[Tensor, Tensor]:
    """The gradient of the query loss by autograd, and by central differences."""
    vector, meta = tiny_point(learner)
    _, layout = flatten(meta)
    episode = tiny_episode(learner)

    def loss(at: Tensor) -> Tensor:
        return learner.query_loss(unflatten(at, layout), episode, progress)

    leaf = vector.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf), leaf)
    nudges = 1e-6 * torch.eye(len(vector)).double()
    differences = torch.stack([(loss(vector + nudge) - loss(vector - nudge)) / 2e-6 for nudge in nudges])
    return gradient, differences


def rows(streams: int, count: int, seed: int = 0) -> Batch:
    """Sinusoid rows, one task a stream."""
    generator = torch.Generator().manual_seed(seed)
    family = Sinusoid()
    return family.rows(family.draw(streams, generator), count, generator)
