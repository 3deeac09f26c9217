"""A Bayesian linear head on meta-learned features, forgetting by reversion to its prior."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from models.kalman import Conditioned, Posterior, condition
from models.learners.base import EVERY_TASK
from models.losses import (
    cross_entropy,
    gaussian_nll,
    masked_mean,
    masked_sum,
    student_t_log_density,
    track_variance,
)
from models.networks import Network, network_of
from models.types import Batch, Episode, Evidence, Predictive, TaskKind, Tensors

CHUNK_ROWS = 64
"""Rows solved jointly; longer batches are chained, which gives the same posterior and the same joint likelihood."""

TAU_ROWS = (100.0, 500.0, 3000.0)
"""Forgetting times of the live members where nothing else is said, in rows."""
NOISE_FLOOR = 1e-6
"""Least noise variance, in units of the standardised target."""
PRODUCT_CLIP = 9.0
"""A product of two standardised inputs beyond this is cut."""
BANDWIDTHS = (0.5, 1.0, 2.0)
"""Inverse widths of the Gaussian kernels that random features stand for, in units of the inputs' root mean square."""
RIDGE = 1.0
"""Penalty of the regression that a prior without a body starts from."""
LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True, slots=True)
class BayesHead:
    """ALPaCA's head with an Ornstein-Uhlenbeck pull towards the meta-learned prior.

    y = Wᵀφ(x) + ε with W ~ N(W0, σ² P0) per output, P0 = AAᵀ. Between two rows time moves by one:
    W ← γW + (1-γ)W0 and P ← γ²P + (1-γ²)P0 with γ² = 1 - 1/τ. One member for each forgetting time τ, and a challenger
    that starts from the prior whenever the detector's statistic is at zero. Classes are regressed one-hot (±1) and
    read off as softmax(a·m/√(1+b·v)) with v = φᵀPφ.

    The noise level belongs to a member: the challenger starts at the live ones' and brings its own when they take it
    over, so that rows which nobody could foresee do not blur a new regime.

    Args:
        task: What the outputs mean.
        inputs: F, width of the network's input.
        outputs: O outputs or C classes.
        hidden: Widths of the body's layers; the last is squashed by tanh and becomes features. Empty: no body.
        full_prior: Whether A is any matrix; else P0 is diagonal, which asks less of few rows.
        skip: Whether the standardised inputs are features too, beside the body's.
        quadratic: Number of leading inputs whose products are features too.
        random_features: Number of random Fourier features of the inputs, drawn once and never trained: with them the
            head is a Gaussian process whose kernel is a sum of Gaussians of several widths (Rahimi, Recht 2007).
        start_columns: Number of last inputs that are a frozen start's answer: features as they are, which the prior
            believes at first.
        tau_rows: Forgetting times of the live members, in rows, each > 1; infinite forgets nothing.
        prior_scales: Factor of the prior's variance for each live member; empty: 1 for all.
        challenger_tau_rows: Forgetting time of the challenger, in rows.
        delay_rows: In meta-training, how many rows of the stream come before a label is known.
        keeps: Positions of live members that an alarm leaves as they are.
        noise_rate: Rate, per row, at which a stream's noise level is tracked (regression).
        network: ``mlp``, or ``conv`` where the inputs are the pixels of a square image, ``hidden`` the blocks' filters.

    Reference:
        Harrison, Sharma, Pavone: Meta-learning priors for efficient online Bayesian regression (ALPaCA), 2018.
        Rahimi, Recht: Random features for large-scale kernel machines, 2007.
    """

    tasks: ClassVar[frozenset[TaskKind]] = EVERY_TASK

    task: TaskKind
    inputs: int
    outputs: int
    hidden: Sequence[int] = (64, 32)
    full_prior: bool = False
    skip: bool = True
    quadratic: int = 0
    random_features: int = 0
    start_columns: int = 0
    tau_rows: Sequence[float] = TAU_ROWS
    prior_scales: Sequence[float] = ()
    challenger_tau_rows: float = 500.0
    delay_rows: int = 0
    keeps: Sequence[int] = ()
    noise_rate: float = 0.005
    network: str = "mlp"

    @property
    def members(self) -> int:
        """One live member for each forgetting time."""
        return len(self.tau_rows)

    @property
    def adaptable(self) -> frozenset[str]:
        """A closed form: neither steps nor a window."""
        return frozenset()

    @property
    def keeps_challenger(self) -> bool:
        """The challenger is a posterior of its own."""
        return True

    @property
    def sequential(self) -> bool:
        """A query row is judged given the query rows before it too."""
        return True

    @property
    def width(self) -> int:
        """Number of features d: a constant, the body's, the start's and, with ``skip``, the inputs and products."""
        own = self.inputs - self.start_columns
        products = self.quadratic * (self.quadratic + 1) // 2
        body = self._body.width if self.hidden else 0
        return 1 + body + self.start_columns + (own if self.skip else 0) + products + self.random_features

    @property
    def _body(self) -> Network:
        return network_of(self.network, self.inputs, self.hidden, last="tanh", prefix="body_")

    def meta_init(self, generator: torch.Generator) -> Tensors:
        """Draw the body, and a prior that expects little of every feature."""
        meta = self._body.init(generator) if self.hidden else {}
        if self.random_features:
            meta |= self._frequencies(generator)
        meta["prior_mean"] = torch.zeros(self.width, self.outputs)
        if self.start_columns:
            meta["prior_mean"][-self.start_columns :] = torch.eye(self.outputs)
        if self.full_prior:
            meta["prior_factor"] = math.exp(-0.5) * torch.eye(self.width)
        else:
            meta["prior_log_var"] = torch.full((self.width,), -1.0)
        if self.task == "regression":
            meta["log_noise"] = torch.full((self.outputs,), -1.0)
        else:
            meta["log_scale"] = torch.tensor(1.0)
            meta["log_spread"] = torch.tensor(0.0)
        return meta

    def features(self, meta: Tensors, x: Tensor) -> Tensor:
        """φ(x): (…, F) inputs to (…, d) features."""
        own = x[..., : self.inputs - self.start_columns]
        parts = [torch.ones_like(x[..., :1])]
        if self.hidden:
            parts.append(self._body.apply(meta, x))
        if self.skip:
            parts.append(own / math.sqrt(own.shape[-1]))
        if self.quadratic:
            first, second = torch.triu_indices(self.quadratic, self.quadratic, device=x.device)
            products = (own[..., first] * own[..., second]).clamp(-PRODUCT_CLIP, PRODUCT_CLIP)
            parts.append(products / math.sqrt(len(first)))
        if self.random_features:
            waves = torch.cos(own @ meta["fourier_weights"] + meta["fourier_phases"])
            parts.append(waves * math.sqrt(2 / self.random_features))
        if self.start_columns:
            parts.append(x[..., -self.start_columns :])
        return torch.cat(parts, dim=-1)

    def warm_start(self, meta: Tensors, rows: Batch) -> Tensors:
        """Without a body the features are known: a ridge regression moves the prior's mean, its variance stays wide.

        On a start the mean stays where it is: with the start, which rows like these have chosen already.

        Its variance cannot be learned on the rows that the regression has seen: nothing seems to change there.
        Random frequencies stay as they were drawn.
        """
        drawn: Tensors = {name: meta[name] for name in ("fourier_weights", "fourier_phases") if name in meta}
        if self.hidden:
            return drawn
        wide: Tensors = {"prior_log_var": torch.zeros(self.width), **drawn}
        if self.start_columns:
            return {**wide, "prior_mean": meta["prior_mean"]}
        phi = self.features(meta, rows.x).flatten(0, 1)
        gram = phi.mT @ phi + RIDGE * torch.eye(self.width)
        left = self._targets(rows).flatten(0, 1) - phi @ meta["prior_mean"]
        return {**wide, "prior_mean": meta["prior_mean"] + torch.linalg.solve(gram, phi.mT @ left)}

    def init(self, meta: Tensors, streams: int) -> Tensors:
        """All members and the challenger at the prior."""
        axes = (streams, self.members + 1)
        prior = self._prior(meta)
        state = {
            "W": prior.W.expand(*axes, -1, -1).clone(),
            "P": (prior.P * self._scales(prior.P)).expand(streams, -1, -1, -1).clone(),
        }
        if self.task == "regression":
            state["noise"] = meta["log_noise"].exp().expand(*axes, -1).clone()
        return state

    def predict(self, meta: Tensors, state: Tensors, x: Tensor) -> Predictive:
        """Predictive of each row on its own."""
        phi = self.features(meta, x)[:, None]  # (S, 1, B, d)
        v = ((phi @ state["P"]) * phi).sum(-1, keepdim=True)  # (S, M, B, 1)
        return self._predictive(meta, phi @ state["W"], v, state.get("noise"))

    def update(self, meta: Tensors, state: Tensors, batch: Batch, window: Batch) -> tuple[Tensors, Evidence]:
        """Condition on the batch jointly, then let time pass by its rows."""
        del window
        phi = (self.features(meta, batch.x) * batch.mask[..., None])[:, None]  # (S, 1, B, d); padding says nothing
        target = self._targets(batch)[:, None]
        mask = batch.mask[:, None]
        post, noise = Posterior(state["W"], state["P"]), state.get("noise")
        parts = []
        for start in range(0, max(1, batch.mask.shape[1]), CHUNK_ROWS):
            rows = slice(start, start + CHUNK_ROWS)
            post, part = condition(post, phi[:, :, rows], target[:, :, rows])
            parts.append(part)
        first = parts[0]
        if len(parts) == 1:
            mean, v = first.mean, first.v
        else:
            mean, v = phi @ state["W"], ((phi @ state["P"]) * phi).sum(-1, keepdim=True)
        predictive = self._predictive(meta, mean, v, noise)
        joint, robust = self._likelihood(meta, parts, noise, batch, mask)
        moved = self._revert(meta, post, batch.mask.sum(1))
        new: Tensors = {"W": moved.W, "P": moved.P}
        if noise is not None:
            squared = (target - mean).square() / (1 + v)
            new["noise"] = track_variance(noise, squared, mask, rate=self.noise_rate).clamp_min(NOISE_FLOOR)
        return new, Evidence(joint, robust, predictive)

    def reset(self, meta: Tensors, state: Tensors, alarm: Tensor, idle: Tensor, since: Batch | None) -> Tensors:
        """Live members take over the challenger, or the posterior of ``since``; an idle challenger restarts.

        Members in ``keeps`` stay: they remember the longest, and an alarm may be false.
        """
        prior = self._prior(meta)
        W, P = state["W"], state["P"]
        if since is None:
            taken = Posterior(W[:, -1:], P[:, -1:])
        else:
            fresh = self.init(meta, alarm.shape[0])
            learned, _ = self.update(meta, fresh, since, since)
            taken = Posterior(learned["W"][:, :-1], learned["P"][:, :-1])
        takes = torch.tensor([member not in self.keeps for member in range(self.members)], device=alarm.device)
        live = (alarm[:, None] & takes)[:, :, None, None]
        restart = idle[:, None, None, None]
        new = dict(state)
        new["W"] = torch.cat([torch.where(live, taken.W, W[:, :-1]), torch.where(restart, prior.W, W[:, -1:])], dim=1)
        new["P"] = torch.cat([torch.where(live, taken.P, P[:, :-1]), torch.where(restart, prior.P, P[:, -1:])], dim=1)
        if "noise" in state:
            noise = state["noise"]
            level = torch.where(live[..., 0], noise[:, -1:], noise[:, :-1]) if since is None else noise[:, :-1]
            own = torch.where(restart[..., 0], level.mean(1, keepdim=True), noise[:, -1:])
            new["noise"] = torch.cat([level, own], dim=1)
        return new

    def holding(self, members: int) -> "BayesHead":
        """The same head with members that learn by conjugate updates alone."""
        return replace(self, tau_rows=(math.inf,) * members, prior_scales=(), challenger_tau_rows=math.inf, keeps=())

    def anew(self, meta: Tensors, state: Tensors) -> tuple["BayesHead", Tensors]:
        """The prior alone, at each stream's own noise level, and the head that moves it."""
        one = replace(self, tau_rows=(), prior_scales=(), keeps=())
        start = one.init(meta, len(state["W"]))
        if "noise" in state:
            start["noise"] = state["noise"][:, :-1].mean(1, keepdim=True)
        return one, start

    def restart(self, state: Tensors, chosen: Tensor, grown: Tensors) -> Tensors:
        """The challenger of the chosen streams becomes what ``anew`` has grown to."""
        moved = {}
        for name, value in state.items():
            here = chosen.view(-1, *[1] * (value.dim() - 1))
            moved[name] = torch.cat([value[:, :-1], torch.where(here, grown[name], value[:, -1:])], dim=1)
        return moved

    def succeed(self, meta: Tensors, state: Tensors, place: Tensor, idle: Tensor) -> Tensors:
        """The challenger with all it has learned takes a live member's place; an idle one goes back to the prior."""
        start = self.init(meta, 1)
        chosen = torch.arange(self.members, device=place.device) == place[:, None]  # (S, M)
        moved = {}
        for name, value in state.items():
            shape = [1] * (value.dim() - 2)
            live = torch.where(chosen.view(*chosen.shape, *shape), value[:, -1:], value[:, :-1])
            last = torch.where(idle.view(-1, 1, *shape), start[name][:, -1:], value[:, -1:])
            moved[name] = torch.cat([live, last], dim=1)
        return moved

    def meta_loss(self, meta: Tensors, episode: Episode, progress: float = 1.0) -> Tensor:
        """Mean loss of the query rows, each given the support and the query rows whose labels are known by then.

        With OU weights the labels are a Gaussian process: Cov(y_i, y_j) = σ²(γ^|i-j| φ_iᵀP0φ_j + δ_ij). One Cholesky
        factor L of that matrix gives all predictions of the prequential run that the server will see: with
        A = L⁻¹(K - I) and w = L⁻¹r, row i given the rows before k has mean m_i + Σ_{j<k} A_ji w_j and variance
        factor v_i = φ_iᵀP0φ_i - Σ_{j<k} A_ji². Tasks take turns over the forgetting times.
        """
        del progress
        batch = Batch(*(torch.cat([s, q], dim=1) for s, q in zip(episode.support, episode.query, strict=True)))
        phi = self.features(meta, batch.x) * batch.mask[..., None]  # (T, n, d)
        tasks, rows = phi.shape[:2]
        taus = torch.tensor(self.tau_rows, dtype=phi.dtype, device=phi.device)[torch.arange(tasks) % self.members]
        age = torch.arange(rows, device=phi.device)
        apart = age[:, None] - age[None, :]
        decay = (1 - 1 / taus)[:, None, None] ** (0.5 * apart.abs())
        scaled = phi @ meta["prior_factor"] if self.full_prior else phi * (0.5 * meta["prior_log_var"]).exp()
        gram = scaled @ scaled.mT * decay
        if self.prior_scales:
            turn = torch.arange(tasks) % self.members
            gram = gram * torch.tensor(self.prior_scales, dtype=phi.dtype, device=phi.device)[turn, None, None]
        factor = torch.linalg.cholesky(gram + torch.eye(rows, dtype=phi.dtype, device=phi.device))
        start = phi @ meta["prior_mean"]
        residual = (self._targets(batch) - start) * batch.mask[..., None]
        solved = torch.linalg.solve_triangular(factor, torch.cat([gram, residual], dim=-1), upper=False)
        known = solved[..., :rows] * (apart.mT > self.delay_rows)  # (T, j, i): row j's label is known to row i
        mean = start + known.mT @ solved[..., rows:]
        v = (gram.diagonal(dim1=-2, dim2=-1) - known.square().sum(-2)).clamp_min(0.0)[..., None]
        if self.task == "regression":
            nll = gaussian_nll(mean, meta["log_noise"].exp() * (1 + v), batch.y)
        else:
            nll = cross_entropy(torch.log_softmax(self._logits(meta, mean, v), dim=-1), batch.y)
        judged = batch.mask.clone()
        judged[:, : episode.support.mask.shape[1]] = False
        return masked_mean(nll.flatten(), judged.flatten())

    def _frequencies(self, generator: torch.Generator) -> Tensors:
        """Draw waves cos(ωᵀx + b), ω Gaussian with one bandwidth after the other, b even over a period."""
        own = self.inputs - self.start_columns
        widths = torch.tensor(BANDWIDTHS)[torch.arange(self.random_features) % len(BANDWIDTHS)]
        weights = torch.randn(own, self.random_features, generator=generator) * widths / math.sqrt(own)
        return {
            "fourier_weights": weights,
            "fourier_phases": 2 * math.pi * torch.rand(self.random_features, generator=generator),
        }

    def _prior(self, meta: Tensors) -> Posterior:
        """The prior as a posterior of one member: W0 (d, O) and P0 (d, d)."""
        if self.full_prior:
            return Posterior(meta["prior_mean"], meta["prior_factor"] @ meta["prior_factor"].mT)
        return Posterior(meta["prior_mean"], torch.diag(meta["prior_log_var"].exp()))

    def _scales(self, like: Tensor) -> Tensor:
        """(M, 1, 1) factors of the prior's covariance, the challenger's 1 last."""
        factors = [*(self.prior_scales or [1.0] * self.members), 1.0]
        return torch.tensor(factors, dtype=like.dtype, device=like.device)[:, None, None]

    def _targets(self, batch: Batch) -> Tensor:
        """Regression targets (S, B, O), or classes as ±1 one-hot (S, B, C)."""
        if self.task == "regression":
            return batch.y
        return one_hot(batch.y, self.outputs).to(batch.x.dtype) * 2 - 1

    def _logits(self, meta: Tensors, mean: Tensor, v: Tensor) -> Tensor:
        """a·m/√(1+b·v)."""
        return meta["log_scale"].exp() * mean / (1 + meta["log_spread"].exp() * v).sqrt()

    def _predictive(self, meta: Tensors, mean: Tensor, v: Tensor, noise: Tensor | None) -> Predictive:
        if noise is None:
            return Predictive(torch.log_softmax(self._logits(meta, mean, v), dim=-1), torch.empty(0))
        return Predictive(mean, noise[:, :, None, :] * (1 + v))

    def _likelihood(
        self, meta: Tensors, parts: Sequence[Conditioned], noise: Tensor | None, batch: Batch, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Joint log-likelihood (S, M) of the batch, chunk given chunk, and the same under heavy tails."""
        mean, v, white, spread = (
            torch.cat(part, dim=2) if len(parts) > 1 else part[0] for part in zip(*parts, strict=True)
        )
        if noise is None:
            log_p = torch.log_softmax(self._logits(meta, mean, v), dim=-1)
            gained = masked_sum(-cross_entropy(log_p, batch.y[:, None].expand(log_p.shape[:-1])), mask)
            return gained, gained
        level = noise[:, :, None, :]
        chained = self.outputs * spread.log()[..., 0]
        log_scale = chained + 0.5 * level.log().sum(-1)
        z2 = white.square() / level
        joint = masked_sum(-0.5 * (z2 + LOG_2PI).sum(-1) - log_scale, mask)
        robust = masked_sum(student_t_log_density(white, level, torch.zeros_like(white)) - chained, mask)
        return joint, robust

    def _revert(self, meta: Tensors, post: Posterior, rows: Tensor) -> Posterior:
        """Let ``rows`` (S,) rows of time pass: the pull towards the prior."""
        log_keep = torch.log1p(-1 / torch.tensor([*self.tau_rows, self.challenger_tau_rows], dtype=post.W.dtype))
        gamma = (0.5 * log_keep.to(post.W.device) * rows[:, None]).exp()[..., None, None]  # (S, M, 1, 1)
        prior = self._prior(meta)
        return Posterior(
            torch.lerp(prior.W, post.W, gamma), torch.lerp(prior.P * self._scales(prior.P), post.P, gamma.square())
        )
