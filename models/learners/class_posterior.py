"""Gaussian classes in a learned embedding, their means inferred and forgotten by reversion to the prior."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from models.errors import InputError
from models.learners import posteriors
from models.learners.bounded import bounded
from models.losses import cross_entropy, masked_mean, masked_sum
from models.networks import Network, network_of
from models.types import Batch, Episode, Evidence, Predictive, TaskKind, Tensors

TAU_ROWS = (500.0, 3000.0)
"""Forgetting times of the live members where nothing else is said, in rows."""
_PRIOR_VARIANCE = 0.3  # features lie in ±1
_VARIANCE = 0.1
_PRIOR_ROWS = 1.0


class _Prior(NamedTuple):
    """Means (C, d) of the classes' means, their variance (d,), a row's variance about its class's mean (d,), α (C,)."""

    mean: Tensor
    variance: Tensor
    noise: Tensor
    rows: Tensor


@dataclass(frozen=True, slots=True)
class ClassPosterior(posteriors.ClosedForm):
    """p(y = c | x) ∝ (α_c + n_c) · N(φ(x); m_c, V_c + Σ)^s, with Σ shared by all classes and diagonal.

    A class's mean is N(μ_c, V) by the meta-learned prior; its rows i of the stream, an age of a_i rows old, count
    g_i = (1 - 1/τ)^a_i each: n_c = Σ g_i, V_c = (V⁻¹ + n_c Σ⁻¹)⁻¹ and m_c = V_c (V⁻¹ μ_c + Σ⁻¹ Σ_i g_i φ(x_i)). So what
    was seen fades and the prior returns, for the means as for how frequent a class is. Features are not as independent
    as Σ has it: the learned power s says how far to believe them. One member for each forgetting time τ, and a
    challenger that starts from the prior whenever the detector's statistic is at zero. A stream's own is n_c and
    Σ g_i φ(x_i), whatever its length. The embedding ends in tanh, or in a normalised block of a convolutional network,
    and variances are bounded, so that whatever the rows are, log probabilities stay finite.

    Args:
        task: ``classification``.
        inputs: F, width of the network's input.
        outputs: C classes.
        hidden: Widths of the embedding's layers, the last is d; or filters of the blocks.
        tau_rows: Forgetting times of the live members, in rows, each > 1; infinite forgets nothing.
        challenger_tau_rows: Forgetting time of the challenger, in rows.
        delay_rows: In meta-training, how many rows of the stream come before a label is known.
        keeps: Positions of live members that an alarm leaves as they are.
        network: ``mlp``, or ``conv`` or ``conv_instance`` where the inputs are the pixels of a square image.

    Raises:
        InputError: Another task.

    Reference:
        Harrison, Sharma, Finn, Pavone (2020). Continuous meta-learning without tasks (PCOC). NeurIPS.
    """

    tasks: ClassVar[frozenset[TaskKind]] = frozenset({"classification"})

    task: TaskKind
    inputs: int
    outputs: int
    hidden: Sequence[int] = (64, 32)
    tau_rows: Sequence[float] = TAU_ROWS
    challenger_tau_rows: float = 500.0
    delay_rows: int = 0
    keeps: Sequence[int] = ()
    network: str = "mlp"

    def __post_init__(self) -> None:
        if self.task not in self.tasks:
            raise InputError(("task",), f"classposterior does {', '.join(self.tasks)} only, got {self.task}")

    @property
    def net(self) -> Network:
        """The embedding."""
        return network_of(self.network, self.inputs, self.hidden, last="tanh", prefix="body_")

    @property
    def stream_numbers(self) -> int:
        """Numbers of a stream's state that one member takes."""
        return self.outputs * (1 + self.net.width)

    def meta_init(self, generator: torch.Generator) -> Tensors:
        """Draw the embedding; all classes are the same by the prior."""
        width = self.net.width
        return {
            **self.net.init(generator),
            "prior_mean": torch.zeros(self.outputs, width),
            "free_variance": torch.zeros(width),
            "free_noise": torch.zeros(width),
            "free_rows": torch.zeros(self.outputs),
            "free_scale": torch.zeros(()),
        }

    def warm_start(self, meta: Tensors, rows: Batch) -> Tensors:
        """Nothing has a closed form."""
        del meta, rows
        return {}

    def init(self, meta: Tensors, streams: int) -> Tensors:
        """Members and challenger without rows."""
        axes, like = (streams, self.members + 1, self.outputs), meta["prior_mean"]
        return {"counts": like.new_zeros(axes), "sums": like.new_zeros(*axes, like.shape[-1])}

    def predict(self, meta: Tensors, state: Tensors, x: Tensor) -> Predictive:
        """Log probabilities of each row on its own."""
        return self._predictive(meta, state, self.net.apply(meta, x))

    def update(self, meta: Tensors, state: Tensors, batch: Batch, window: Batch) -> tuple[Tensors, Evidence]:
        """Score the batch, then add its rows to the sums; all that is there grows older by its rows."""
        del window
        phi = self.net.apply(meta, batch.x)
        predictive = self._predictive(meta, state, phi)
        gained = -cross_entropy(predictive.mean, batch.y[:, None])
        joint = masked_sum(gained, batch.mask[:, None])
        count = batch.mask.sum(1, keepdim=True)
        age = count + 1 - batch.mask.cumsum(1)  # (S, B), 1 is the newest
        keep = self._keep(phi)[:, None]
        weight = torch.where(batch.mask[:, None], keep ** age[:, None], 0.0)  # (S, M, B)
        member = one_hot(batch.y, self.outputs).to(phi.dtype)[:, None] * weight[..., None]  # (S, M, B, C)
        rows = torch.where(batch.mask[..., None], phi, 0.0)[:, None]  # (S, 1, B, d)
        kept = keep[:, 0] ** count  # (S, M)
        new = {
            "counts": kept[..., None] * state["counts"] + member.sum(2),
            "sums": kept[..., None, None] * state["sums"] + member.mT @ rows,
        }
        return new, Evidence(joint, joint, predictive)

    def reset(self, meta: Tensors, state: Tensors, alarm: Tensor, idle: Tensor, since: Batch | None) -> Tensors:
        """Live members take over the challenger, or what ``since`` gives; an idle challenger restarts."""
        fresh = self.init(meta, alarm.shape[0])
        taken = {name: value[:, -1:] for name, value in state.items()}
        if since is not None:
            learned, _ = self.update(meta, fresh, since, since)
            taken = {name: value[:, :-1] for name, value in learned.items()}
        live = alarm[:, None] & posteriors.takers(self.members, self.keeps, alarm.device)
        first = {name: value[:, -1:] for name, value in fresh.items()}
        return posteriors.take_over(state, live, taken, idle, first)

    def keeping(self, places: Sequence[int]) -> "ClassPosterior":
        """The same with members that an alarm leaves as they are."""
        return replace(self, keeps=tuple(places))

    def trust(self, state: Tensors) -> Tensor:
        """All the same."""
        return state["counts"].new_zeros(len(state["counts"]), self.members)

    def holding(self, members: int) -> "ClassPosterior":
        """The same with members that forget nothing."""
        return replace(self, tau_rows=(math.inf,) * members, challenger_tau_rows=math.inf, keeps=())

    def foresee(self, meta: Tensors, state: Tensors, x: Tensor) -> Predictive:
        """The prior's answer."""
        one, start = self._anew(meta, len(state["counts"]))
        return one.predict(meta, start, x)

    def foreseen(self, meta: Tensors, state: Tensors, batch: Batch) -> Evidence:
        """How well the prior has foreseen a batch."""
        one, start = self._anew(meta, len(state["counts"]))
        return one.update(meta, start, batch, batch)[1]

    def restart(self, meta: Tensors, state: Tensors, chosen: Tensor, before: Tensors, batch: Batch) -> Tensors:
        """The challenger of the chosen streams becomes the prior that has learned the batch."""
        one, start = self._anew(meta, len(before["counts"]))
        return posteriors.restart(state, chosen, one.update(meta, start, batch, batch)[0])

    def _anew(self, meta: Tensors, streams: int) -> tuple["ClassPosterior", Tensors]:
        one = replace(self, tau_rows=(), keeps=())
        return one, one.init(meta, streams)

    def succeed(self, meta: Tensors, state: Tensors, place: Tensor, idle: Tensor) -> Tensors:
        """The challenger with all it has learned takes a live member's place; an idle one goes back to the prior."""
        return posteriors.succeed(state, self.init(meta, 1), place, idle)

    def meta_loss(self, meta: Tensors, episode: Episode, progress: float = 1.0) -> Tensor:
        """Mean loss of the query rows, each given the support and the query rows whose labels are known by then.

        One matrix of weights (1 - 1/τ)^(i - j), zero where row j's label is not known to row i, gives the counts and
        sums of all rows of the prequential run that the server will see. Tasks take turns over the forgetting times.
        """
        del progress
        batch = Batch(*(torch.cat([s, q], dim=1) for s, q in zip(episode.support, episode.query, strict=True)))
        phi = torch.where(batch.mask[..., None], self.net.apply(meta, batch.x), 0.0)  # (T, n, d)
        tasks, rows = batch.mask.shape
        keep = self._keep(phi)[:-1][torch.arange(tasks) % self.members]
        time = batch.mask.cumsum(1)
        apart = time[:, :, None] - time[:, None, :]
        known = (apart > self.delay_rows) & batch.mask[:, None]  # (T, i, j): row j's label is known to row i
        weight = torch.where(known, keep[:, None, None] ** apart.clamp_min(0), 0.0)
        member = one_hot(batch.y, self.outputs).to(phi.dtype)  # (T, n, C)
        each = (member[..., None] * phi[:, :, None]).flatten(2)  # (T, n, C·d)
        sums = (weight @ each).view(tasks, rows, self.outputs, -1)
        log_p = self._log_probabilities(meta, weight @ member, sums, phi[:, :, None])[:, :, 0]  # (T, n, C)
        judged = batch.mask.clone()
        judged[:, : episode.support.mask.shape[1]] = False
        return masked_mean(cross_entropy(log_p, batch.y).flatten(), judged.flatten())

    def _predictive(self, meta: Tensors, state: Tensors, phi: Tensor) -> Predictive:
        mean = self._log_probabilities(meta, state["counts"], state["sums"], phi[:, None])
        return Predictive(mean, phi.new_empty(0))

    def _log_probabilities(self, meta: Tensors, counts: Tensor, sums: Tensor, phi: Tensor) -> Tensor:
        """Of rows φ (…, B, d) given counts (…, C) and sums (…, C, d): (…, B, C)."""
        prior = self._prior(meta)
        variance = 1 / (1 / prior.variance + counts[..., None] / prior.noise)  # (…, C, d)
        mean = variance * (prior.mean / prior.variance + sums / prior.noise)
        spread = variance + prior.noise
        # (φ - m)²/s summed over d as three products, so that nothing is (…, B, C, d)
        squares = phi.square() @ (1 / spread).mT - 2 * phi @ (mean / spread).mT
        constant = (mean.square() / spread + spread.log()).sum(-1)
        scale = bounded(1.0, meta["free_scale"])
        logits = (prior.rows + counts).log() - 0.5 * scale * constant
        return torch.log_softmax(logits[..., None, :] - 0.5 * scale * squares, dim=-1)

    def _prior(self, meta: Tensors) -> _Prior:
        return _Prior(
            meta["prior_mean"],
            bounded(_PRIOR_VARIANCE, meta["free_variance"]),
            bounded(_VARIANCE, meta["free_noise"]),
            bounded(_PRIOR_ROWS, meta["free_rows"]),
        )

    def _keep(self, like: Tensor) -> Tensor:
        """(M + 1,) what is left of a row's weight after one more row, the challenger's last."""
        return 1 - 1 / torch.tensor([*self.tau_rows, self.challenger_tau_rows], dtype=like.dtype, device=like.device)
