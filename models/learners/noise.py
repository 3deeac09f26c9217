"""What stands between a linear head and the labels: noise whose level is tracked, or the softmax of classes."""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from models.kalman import Conditioned
from models.losses import cross_entropy, gaussian_nll, masked_sum, student_t_log_density, track_variance
from models.types import Batch, Predictive, Tensors

NOISE_FLOOR = 1e-6
"""Least noise variance, in units of the standardised target."""
OUTLIERS, OUTLIER_ROWS = 0.2, 100.0
"""Before any row, so many labels in the tails are expected in so many rows."""
OUTLIER_ROWS_MAX = 5_000.0
"""Rows that the record of labels in the tails goes back, at most."""
WIDE, WIDE_DF = 3.0, 5.0
"""The tails: a Student-t's scale in standard deviations of the noise, and its degrees of freedom."""
CLASS_NOISE = 0.25
"""Noise variance of classes coded as ±1, where a young regime is compared with a remembered one."""
KEPT = ("noise", "tails", "tail_rows")
"""What is kept of each member's noise."""
LOG_2PI = math.log(2 * math.pi)


class Readout(Protocol):
    """How labels follow from a head's means and variance factors; ``state`` has what it keeps of each member."""

    def meta_init(self) -> Tensors:
        """Learned tensors before meta-training."""
        ...

    def init(self, meta: Tensors, streams: int, members: int) -> Tensors:
        """State of ``members`` members, the challenger among them: every tensor is (S, M, …)."""
        ...

    def targets(self, batch: Batch) -> Tensor:
        """What the head regresses: (S, B, O)."""
        ...

    def predictive(self, meta: Tensors, state: Tensors, mean: Tensor, v: Tensor) -> Predictive:
        """Of means (S, M, B, O) and variance factors v = φᵀPφ (S, M, B, 1)."""
        ...

    def evidence(self, meta: Tensors, state: Tensors, found: Conditioned, batch: Batch) -> tuple[Tensor, Tensor]:
        """Joint log-likelihood (S, M) of a batch that the head was conditioned on, and the same under heavy tails."""
        ...

    def learn(
        self, meta: Tensors, state: Tensors, mean: Tensor, v: Tensor, found: Conditioned, batch: Batch
    ) -> Tensors:
        """State after a batch that was predicted with ``mean`` and ``v``, and that the head was conditioned on."""
        ...

    def reset(self, state: Tensors, live: Tensor, restart: Tensor, *, handed_over: bool) -> Tensors:
        """State after the detector's decision.

        Args:
            state: State after the update.
            live: (S, M) live members that re-adapt.
            restart: (S,) challengers that start again.
            handed_over: Whether live members take over the challenger, instead of a posterior from given rows.
        """
        ...

    def level(self, state: Tensors) -> Tensor:
        """(S, O) variance of the noise in what the head regresses."""
        ...

    def anew(self, state: Tensors) -> Tensors:
        """State of a challenger that starts now: (S, 1, …)."""
        ...

    def nll(self, meta: Tensors, mean: Tensor, v: Tensor, batch: Batch, white: Tensor, age: Tensor) -> Tensor:
        """Loss of rows, for meta-training.

        Args:
            meta: Learned tensors.
            mean: (T, n, O) means, each given the rows that are known to the row.
            v: (T, n, 1) variance factors.
            batch: The rows.
            white: (T, n, O) residuals decorrelated in order, 0 on padding.
            age: (n, n) how many rows known to row i follow row j; negative where j is not known to i.

        Returns:
            (T, n).
        """
        ...


@dataclass(frozen=True, slots=True)
class TrackedNoise:
    """y = m + ε, ε ~ N(0, σ²(1+v)), with σ² of each output followed by an exponentially weighted mean.

    What a test for change looks at has tails: with probability ε_o a label comes from a wide Student-t instead. How
    often that happens is learned too, so that a stream whose labels have always been near keeps a sharp test, and one
    with outliers does not alarm at each. All of it belongs to a member: the challenger starts at the live ones' median
    and brings its own when they take it over, so that rows which nobody could foresee do not blur a new regime.

    State: ``noise`` (S, M, O) σ²; ``tails`` (S, M, O) expected number of labels in the tails, in ``tail_rows``
    (S, M, 1) rows.

    Args:
        outputs: O.
        rate: Weight of a row.
    """

    outputs: int
    rate: float

    def meta_init(self) -> Tensors:
        """The level where a stream begins."""
        return {"log_noise": torch.full((self.outputs,), -1.0)}

    def init(self, meta: Tensors, streams: int, members: int) -> Tensors:
        """Every member at the learned level."""
        level = meta["log_noise"].exp().expand(streams, members, -1).clone()
        return {
            "noise": level,
            "tails": torch.full_like(level, OUTLIERS),
            "tail_rows": torch.full_like(level[..., :1], OUTLIER_ROWS),
        }

    def targets(self, batch: Batch) -> Tensor:
        """The labels as they are."""
        return batch.y

    def predictive(self, meta: Tensors, state: Tensors, mean: Tensor, v: Tensor) -> Predictive:
        """N(m, σ²(1+v))."""
        del meta
        return Predictive(mean, state["noise"][:, :, None, :] * (1 + v))

    def evidence(self, meta: Tensors, state: Tensors, found: Conditioned, batch: Batch) -> tuple[Tensor, Tensor]:
        """Of the decorrelated residuals: normal, and with a share in the tails."""
        del meta
        mask = batch.mask[:, None]
        level = state["noise"][:, :, None, :]
        chained = self.outputs * found.spread.log()[..., 0]
        clean, wide = _densities(found.white, level)
        share = tail_share(state)[:, :, None, :]
        robust = torch.logaddexp(clean + torch.log1p(-share), wide + share.log())
        return masked_sum(clean.sum(-1) - chained, mask), masked_sum(robust.sum(-1) - chained, mask)

    def learn(
        self, meta: Tensors, state: Tensors, mean: Tensor, v: Tensor, found: Conditioned, batch: Batch
    ) -> Tensors:
        """Follow the squared residuals, each divided by what was expected beyond the noise, and count the tails."""
        del meta, found
        residual = (batch.y[:, None] - mean) / (1 + v).sqrt()
        mask = batch.mask[:, None]
        level = track_variance(state["noise"], residual.square(), mask, rate=self.rate)
        clean, wide = _densities(residual, state["noise"][:, :, None, :])
        in_tails = torch.sigmoid(wide - clean + torch.logit(tail_share(state))[:, :, None, :])
        known = mask[..., None] / (1 + v)  # a row says as much of the noise as there was in what it was predicted with
        counted = torch.where(mask[..., None], in_tails * known, 0.0).sum(2)
        rows = state["tail_rows"] + known.sum(2)
        kept = (OUTLIER_ROWS_MAX / rows).clamp_max(1.0)
        return {
            "noise": level.clamp_min(NOISE_FLOOR),
            "tails": (state["tails"] + counted) * kept,
            "tail_rows": rows * kept,
        }

    def reset(self, state: Tensors, live: Tensor, restart: Tensor, *, handed_over: bool) -> Tensors:
        """Whoever takes over the challenger takes its noise; a challenger that restarts takes the live ones' median."""
        moved = {}
        for name in KEPT:
            value = state[name]
            level = torch.where(live[..., None], value[:, -1:], value[:, :-1]) if handed_over else value[:, :-1]
            own = torch.where(restart[:, None, None], _middle(level), value[:, -1:])
            moved[name] = torch.cat([level, own], dim=1)
        return moved

    def level(self, state: Tensors) -> Tensor:
        """The median of the live members' levels."""
        return _middle(state["noise"][:, :-1])[:, 0]

    def anew(self, state: Tensors) -> Tensors:
        """The median of the live members' noise."""
        return {name: _middle(state[name][:, :-1]) for name in KEPT}

    def nll(self, meta: Tensors, mean: Tensor, v: Tensor, batch: Batch, white: Tensor, age: Tensor) -> Tensor:
        """−log N(y; m, σ²(1+v)) at the learned level."""
        del white, age
        return gaussian_nll(mean, meta["log_noise"].exp() * (1 + v), batch.y)


@dataclass(frozen=True, slots=True)
class SoftmaxReadout:
    """Classes regressed one-hot (±1) and read off as softmax(a·m/√(1+b·v)); nothing is kept of a stream.

    Args:
        outputs: C classes.
    """

    outputs: int

    def meta_init(self) -> Tensors:
        """The scale a and how much uncertainty flattens, b, in logs."""
        return {"log_scale": torch.tensor(1.0), "log_spread": torch.tensor(0.0)}

    def init(self, meta: Tensors, streams: int, members: int) -> Tensors:
        """Nothing."""
        del meta, streams, members
        return {}

    def targets(self, batch: Batch) -> Tensor:
        """1 for a row's class, -1 for the others."""
        return one_hot(batch.y, self.outputs).to(batch.x.dtype) * 2 - 1

    def predictive(self, meta: Tensors, state: Tensors, mean: Tensor, v: Tensor) -> Predictive:
        """Log probabilities."""
        del state
        return Predictive(self._log_probabilities(meta, mean, v), torch.empty(0))

    def evidence(self, meta: Tensors, state: Tensors, found: Conditioned, batch: Batch) -> tuple[Tensor, Tensor]:
        """Of the rows' classes, each row on its own; nothing is robuster."""
        del state
        log_p = self._log_probabilities(meta, found.mean, found.v)
        gained = -cross_entropy(log_p, batch.y[:, None].expand(log_p.shape[:-1]))
        joint = masked_sum(gained, batch.mask[:, None])
        return joint, joint

    def learn(
        self, meta: Tensors, state: Tensors, mean: Tensor, v: Tensor, found: Conditioned, batch: Batch
    ) -> Tensors:
        """Nothing."""
        del meta, state, mean, v, found, batch
        return {}

    def reset(self, state: Tensors, live: Tensor, restart: Tensor, *, handed_over: bool) -> Tensors:
        """Nothing."""
        del state, live, restart, handed_over
        return {}

    def level(self, state: Tensors) -> Tensor:
        """The same for all streams."""
        W = state["W"]
        return W.new_full((W.shape[0], self.outputs), CLASS_NOISE)

    def anew(self, state: Tensors) -> Tensors:
        """Nothing."""
        del state
        return {}

    def nll(self, meta: Tensors, mean: Tensor, v: Tensor, batch: Batch, white: Tensor, age: Tensor) -> Tensor:
        """−log p of the row's class."""
        del white, age
        return cross_entropy(self._log_probabilities(meta, mean, v), batch.y)

    def _log_probabilities(self, meta: Tensors, mean: Tensor, v: Tensor) -> Tensor:
        logits = meta["log_scale"].exp() * mean / (1 + meta["log_spread"].exp() * v).sqrt()
        return torch.log_softmax(logits, dim=-1)


def tail_share(state: Tensors) -> Tensor:
    """(S, M, O) share of the labels that each member expects in the tails."""
    return state["tails"] / state["tail_rows"]


def _middle(values: Tensor) -> Tensor:
    """(S, 1, …) the members' median, the lower one of two: a member that is lost has no say."""
    return values.median(dim=1, keepdim=True).values


def _densities(residual: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
    """Log densities (S, M, B, O) of residuals in noise of variance ``level``: normal, and in the tails."""
    clean = -0.5 * (residual.square() / level + level.log() + LOG_2PI)
    scaled = residual.unsqueeze(-1)
    wide = student_t_log_density(torch.zeros_like(scaled), (level * WIDE**2).unsqueeze(-1), scaled, df=WIDE_DF)
    return clean, wide
