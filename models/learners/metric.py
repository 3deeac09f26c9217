"""Learners that classify by distance in an embedding: nothing but the embedding and a prior is learned.

What prototypical and matching networks share: the embedding, similarities, serving and the meta-objective. They differ
in what a stream keeps of its window.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from models import losses
from models.errors import InputError
from models.learners.bounded import bounded
from models.networks import Network, network_of
from models.types import Batch, Episode, Evidence, Predictive, TaskKind, Tensors

DISTANCES = ("cosine", "squared_euclidean")
_COSINE_SCALE = 10.0  # cosines lie in ±1; unscaled no class would get a probability near one
_UNIT_WIDTH = 32  # squared distances add up over the embedding: beyond this width they start smaller, not saturated
_EVEN_ROWS = 1.0  # pseudo-rows of each class to begin with
_NORM_FLOOR = 1e-12  # under the square root, whose slope at zero is infinite


@dataclass(frozen=True)
class MetricLearner(ABC):
    """Class probabilities from similarities to what the window holds; one live member.

    The embedding φ ends in tanh, or in a normalised block of a convolutional network, and scale and pseudo-counts are
    bounded, so that whatever the rows are, log probabilities stay finite. Each class begins with a learned prototype
    that counts as some rows of the class: what the meta-initialization says, and what is left of it where the window
    has no rows of a class. State is computed from the window alone with every batch. The challenger is the
    meta-initialization.

    Attributes:
        task: ``classification``.
        inputs: F.
        outputs: C classes.
        hidden: Widths of the embedding's layers, the last is d; or filters of the blocks.
        distance: ``squared_euclidean`` or ``cosine``, which trains less well.
        network: ``mlp``, or ``conv`` or ``conv_instance`` where the inputs are the pixels of a square image.
    """

    tasks: ClassVar[frozenset[TaskKind]] = frozenset({"classification"})

    task: TaskKind
    inputs: int
    outputs: int
    hidden: Sequence[int] = (64, 32)
    distance: str = "squared_euclidean"
    network: str = "mlp"

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))  # a list, when read from JSON
        if self.task not in self.tasks:
            name = type(self).__name__.lower()
            raise InputError(("task",), f"{name} does {', '.join(self.tasks)} only, got {self.task}")
        if self.distance not in DISTANCES:
            raise ValueError(f"unknown distance {self.distance!r}, choose one of {', '.join(DISTANCES)}")
        _ = self.net  # says what is wrong with it

    @property
    def net(self) -> Network:
        """The embedding."""
        return network_of(self.network, self.inputs, self.hidden, last="tanh")

    @property
    def width(self) -> int:
        """Width d of the embedding."""
        return self.net.width

    @property
    def members(self) -> int:
        """One live member."""
        return 1

    @property
    def adaptable(self) -> frozenset[str]:
        """A stream may choose its window."""
        return frozenset({"window_rows"})

    @property
    def keeps_challenger(self) -> bool:
        """The challenger is the initialization: re-adapting needs the rows again."""
        return False

    @property
    def sequential(self) -> bool:
        """All query rows are judged from the support alone."""
        return False

    @abstractmethod
    def support_state(self, meta: Tensors, support: Batch) -> Tensors:
        """What S streams keep of ``support``; of no rows, the meta-initialization."""

    @abstractmethod
    def log_probabilities(self, meta: Tensors, state: Tensors, phi: Tensor) -> Tensor:
        """(S, B, C) for embedded rows (S, B, d)."""

    def meta_init(self, generator: torch.Generator) -> Tensors:
        """Draw the embedding; prior prototypes are zero, which leaves all classes as likely."""
        meta = self.net.init(generator)
        meta["prior"] = torch.zeros(self.outputs, self.width)
        meta["free_rows"] = torch.zeros(self.outputs)
        meta["free_scale"] = torch.zeros(())
        return meta

    def warm_start(self, meta: Tensors, rows: Batch) -> Tensors:
        """Nothing has a closed form."""
        del meta, rows
        return {}

    def init(self, meta: Tensors, streams: int) -> Tensors:
        """Streams without rows."""
        like = meta["prior"]
        x = like.new_zeros(streams, 0, self.inputs)
        y = torch.zeros(streams, 0, dtype=torch.int64, device=like.device)
        return self.support_state(meta, Batch(x, y, y.to(torch.bool)))

    @torch.no_grad()
    def predict(self, meta: Tensors, state: Tensors, x: Tensor) -> Predictive:
        """Log probabilities given the window, then by the initialization alone."""
        phi = self.net.apply(meta, x)
        fresh = self.init(meta, x.shape[0])
        each = [self.log_probabilities(meta, one, phi) for one in (state, fresh)]
        return Predictive(torch.stack(each, dim=1), phi.new_empty(0))

    @torch.no_grad()
    def update(self, meta: Tensors, state: Tensors, batch: Batch, window: Batch) -> tuple[Tensors, Evidence]:
        """Score the batch, then take the window in."""
        predictive = self.predict(meta, state, batch.x)
        rows = -losses.cross_entropy(predictive.mean, batch.y.unsqueeze(1))
        joint = losses.masked_sum(rows, batch.mask.unsqueeze(1))
        return _where(batch.mask.any(1), self.support_state(meta, window), state), Evidence(joint, joint, predictive)

    @torch.no_grad()
    def reset(self, meta: Tensors, state: Tensors, alarm: Tensor, idle: Tensor, since: Batch | None) -> Tensors:  # noqa: ARG002  # the challenger is always the initialization
        """Alarmed streams keep ``since`` alone; without rows they go back to the initialization."""
        if not bool(alarm.any()):
            return state
        fresh = self.init(meta, alarm.shape[0]) if since is None else self.support_state(meta, since)
        return _where(alarm, fresh, state)

    def meta_loss(self, meta: Tensors, episode: Episode, progress: float = 1.0) -> Tensor:
        """Cross-entropy of the queries given the supports, mean over tasks, half; by the initialization, half.

        What the initialization alone says is served to new streams and after alarms, so it is trained too.
        """
        del progress
        query = episode.query
        phi = self.net.apply(meta, query.x)
        total = phi.new_zeros(())
        for state in (self.support_state(meta, episode.support), self.init(meta, query.x.shape[0])):
            rows = losses.cross_entropy(self.log_probabilities(meta, state, phi), query.y)
            total = total + 0.5 * losses.masked_mean(rows, query.mask).mean()
        return total

    def similarity(self, meta: Tensors, phi: Tensor, keys: Tensor) -> Tensor:
        """−scale·‖φ − key‖², or scale·cos(φ, key): (S, B, d) and (S, K, d) to (S, B, K)."""
        if self.distance == "cosine":
            return bounded(_COSINE_SCALE, meta["free_scale"]) * _unit(phi) @ _unit(keys).mT
        squares = phi.square().sum(-1, keepdim=True) + keys.square().sum(-1).unsqueeze(-2)
        start = min(1.0, _UNIT_WIDTH / self.width)
        return -bounded(start, meta["free_scale"]) * (squares - 2.0 * phi @ keys.mT).clamp_min(0.0)

    def prior_rows(self, meta: Tensors) -> Tensor:
        """(C,) how many rows each class's prior prototype counts as."""
        return bounded(_EVEN_ROWS, meta["free_rows"])


def _unit(rows: Tensor) -> Tensor:
    """Rows of length one; zero stays zero."""
    return rows / (rows.square().sum(-1, keepdim=True) + _NORM_FLOOR).sqrt()


def _where(chosen: Tensor, new: Tensors, old: Tensors) -> Tensors:
    """Per stream, the new tensors where chosen (S,) and otherwise the old ones, bit for bit."""
    return {name: torch.where(chosen.reshape(-1, *[1] * (t.dim() - 1)), t, old[name]) for name, t in new.items()}
