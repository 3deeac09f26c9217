"""The interface that every learner has."""

from collections.abc import Sequence
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from models.types import Batch, Episode, Evidence, Predictive, TaskKind, Tensors

EVERY_TASK: frozenset[TaskKind] = frozenset({"regression", "classification"})
"""What most learners can do."""


class Learner(Protocol):
    """How one expert of a model is meta-trained, adapted and asked.

    A learner is a frozen dataclass built as ``LEARNERS[name](task=…, inputs=F, outputs=O or C, **hyper_parameters)``.
    It keeps nothing: ``meta`` (learned offline, shared by all streams) and ``state`` (a stream's own, leading axis S)
    are flat dicts of tensors that come in and go out. All methods are pure and batched over streams. Predictions come
    from ``members`` live members followed by one *challenger*: the meta-initialization plus the rows since the
    detector's statistic last left zero, or the meta-initialization alone where a learner keeps no such posterior.
    """

    @property
    def inputs(self) -> int:
        """F, width of the rows that it takes."""
        ...

    @property
    def members(self) -> int:
        """Number of live members, the challenger not counted."""
        ...

    @property
    def adaptable(self) -> frozenset[str]:
        """Fields of a stream's configuration that change this learner (``window_rows``, ``steps``)."""
        ...

    @property
    def keeps_challenger(self) -> bool:
        """Whether the challenger is a posterior that ``reset`` can take over; else it needs the rows again."""
        ...

    @property
    def sequential(self) -> bool:
        """Whether ``meta_loss`` judges each query row given the query rows before it too."""
        ...

    def meta_init(self, generator: torch.Generator) -> Tensors:
        """Draw the learned tensors as they are before meta-training, without any stream axis."""
        ...

    def warm_start(self, meta: Tensors, rows: Batch) -> Tensors:
        """Learned tensors that training rows (1, rows, ·) settle in closed form; ``meta_loss`` trains the others."""
        ...

    def init(self, meta: Tensors, streams: int) -> Tensors:
        """State of ``streams`` streams at the meta-initialization; every tensor leads with S."""
        ...

    def predict(self, meta: Tensors, state: Tensors, x: Tensor) -> Predictive:
        """Predictive distributions of rows ``x`` (S, B, F) under each member."""
        ...

    def update(self, meta: Tensors, state: Tensors, batch: Batch, window: Batch) -> tuple[Tensors, Evidence]:
        """Learn a batch.

        Args:
            meta: Learned tensors.
            state: State before the batch.
            batch: The new rows. A stream whose mask is empty keeps its state.
            window: The last retained rows since the last re-adaptation, newest last, ``batch`` included (as far as
                the window is long).

        Returns:
            The new state, and the log-likelihood of the batch under the state before it.
        """
        ...

    def reset(self, meta: Tensors, state: Tensors, alarm: Tensor, idle: Tensor, since: Batch | None) -> Tensors:
        """Act on the detector's decision, after ``update``; ``state`` is given away and may be written into.

        Args:
            meta: Learned tensors.
            state: State after the update.
            alarm: (S,) bool; these streams re-adapt from the meta-initialization.
            idle: (S,) bool; the statistic is at zero: the challenger starts again from the meta-initialization.
            since: Rows to re-adapt on, time in their order. ``None``, only where ``keeps_challenger``: the challenger
                has learned just these rows already, take it over.
        """
        ...

    def meta_loss(self, meta: Tensors, episode: Episode, progress: float = 1.0) -> Tensor:
        """Scalar to minimise: loss on the queries after adapting to the supports, mean over tasks.

        Args:
            meta: Learned tensors.
            episode: Tasks.
            progress: Fraction of meta-training done, for objectives that move along; 1, the final objective, is what
                meta-validation judges by.
        """
        ...


@runtime_checkable
class KeepsPosteriors(Learner, Protocol):
    """A learner whose members are posteriors from different starts, so that one can take another's place."""

    @property
    def tau_rows(self) -> Sequence[float]:
        """Forgetting time of each live member, in rows."""
        ...

    @property
    def keeps(self) -> Sequence[int]:
        """Positions of live members that an alarm leaves as they are."""
        ...

    @property
    def stream_numbers(self) -> int:
        """Numbers of a stream's state that one member takes."""
        ...

    def keeping(self, places: Sequence[int]) -> Self:
        """The same with ``keeps`` at these places."""
        ...

    def trust(self, state: Tensors) -> Tensor:
        """(S, members) nats by which an alarm's evidence raises live members over the others."""
        ...

    def holding(self, members: int) -> Self:
        """The same with ``members`` live members that forget nothing, for a detector that weighs hypotheses."""
        ...

    def foresee(self, meta: Tensors, state: Tensors, x: Tensor) -> Predictive:
        """What a start that no row was learned from says of rows (S, B, F), at the stream's own noise: one member."""
        ...

    def foreseen(self, meta: Tensors, state: Tensors, batch: Batch) -> Evidence:
        """How well such a start has foreseen a batch; its predictions are ``foresee``'s, bit for bit."""
        ...

    def restart(self, meta: Tensors, state: Tensors, chosen: Tensor, before: Tensors, batch: Batch) -> Tensors:
        """The challenger of the chosen streams (S,) becomes such a start that has learned the batch.

        ``state`` is given away and may be written into; ``before`` is the state before the batch.
        """
        ...

    def succeed(self, meta: Tensors, state: Tensors, place: Tensor, idle: Tensor) -> Tensors:
        """The challenger takes the place (S,) of a live member, of none at -1; an idle one (S,) then restarts.

        ``state`` is given away and may be written into.
        """
        ...


class LearnerKind(Protocol):
    """An entry of the table LEARNERS: makes learners, and says beforehand of which tasks."""

    @property
    def tasks(self) -> frozenset[TaskKind]:
        """Tasks that the learner can do; made for another one it raises ``InputError``."""
        ...

    def __call__(self, *args: Any, **kwargs: Any) -> Learner:
        """Make a learner."""
        ...
