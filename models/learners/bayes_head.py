"""A Bayesian linear head on meta-learned features, forgetting by reversion to its prior."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from models.losses import cross_entropy, gaussian_nll, masked_mean, masked_sum, student_t_log_density, track_variance
from models.networks import Mlp
from models.types import Batch, Episode, Evidence, Predictive, TaskKind, Tensors

CHUNK_ROWS = 64
"""Rows solved jointly; longer batches are chained, which gives the same posterior and the same joint likelihood."""

NOISE_FLOOR = 1e-6
"""Least noise variance, in units of the standardised target."""
LOG_2PI = math.log(2 * math.pi)


class _Posterior(NamedTuple):
    """W (S, M, d, O) and P (S, M, d, d): weights ~ N(W, σ² P) for each member."""

    W: Tensor
    P: Tensor


@dataclass(frozen=True, slots=True)
class BayesHead:
    """ALPaCA's head with an Ornstein-Uhlenbeck pull towards the meta-learned prior.

    y = Wᵀφ(x) + ε with W ~ N(W0, σ² P0) per output, P0 diagonal. Between two rows time moves by one:
    W ← γW + (1-γ)W0 and P ← γ²P + (1-γ²)P0 with γ² = 1 - 1/τ. One member for each forgetting time τ, and a challenger
    that starts from the prior whenever the detector's statistic is at zero. Classes are regressed one-hot (±1) and
    read off as softmax(a·m/√(1+b·v)) with v = φᵀPφ.

    Args:
        task: What the outputs mean.
        inputs: F, width of the network's input.
        outputs: O outputs or C classes.
        hidden: Widths of the body's layers; the last is squashed by tanh and becomes features.
        skip: Whether the standardised inputs are features too, beside the body's.
        tau_rows: Forgetting times of the live members, in rows, each > 1.
        challenger_tau_rows: Forgetting time of the challenger, in rows.
        delay_rows: In meta-training, how many rows of the stream come before a label is known.
        noise_rate: Rate, per row, at which a stream's noise level is tracked (regression).

    Reference:
        Harrison, Sharma, Pavone: Meta-learning priors for efficient online Bayesian regression (ALPaCA), 2018.
    """

    task: TaskKind
    inputs: int
    outputs: int
    hidden: Sequence[int] = (64, 32)
    skip: bool = True
    tau_rows: Sequence[float] = (100.0, 500.0, 3000.0)
    challenger_tau_rows: float = 500.0
    delay_rows: int = 0
    noise_rate: float = 0.005

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
        """Number of features d: the body's, a constant and, with ``skip``, the inputs."""
        return self.hidden[-1] + 1 + (self.inputs if self.skip else 0)

    @property
    def _body(self) -> Mlp:
        return Mlp((self.inputs, *self.hidden), last="tanh", prefix="body_")

    def meta_init(self, generator: torch.Generator) -> Tensors:
        """Draw the body, and a prior that expects little of every feature."""
        meta = self._body.init(generator)
        meta["prior_mean"] = torch.zeros(self.width, self.outputs)
        meta["prior_log_var"] = torch.full((self.width,), -1.0)
        if self.task == "regression":
            meta["log_noise"] = torch.full((self.outputs,), -1.0)
        else:
            meta["log_scale"] = torch.tensor(1.0)
            meta["log_spread"] = torch.tensor(0.0)
        return meta

    def features(self, meta: Tensors, x: Tensor) -> Tensor:
        """φ(x): (…, F) inputs to (…, d) features."""
        h = self._body.apply(meta, x)
        one = torch.ones_like(h[..., :1])
        parts = [one, h, x / math.sqrt(self.inputs)] if self.skip else [one, h]
        return torch.cat(parts, dim=-1)

    def init(self, meta: Tensors, streams: int) -> Tensors:
        """All members and the challenger at the prior."""
        axes = (streams, self.members + 1)
        prior = self._prior(meta)
        state = {
            "W": prior.W.expand(*axes, -1, -1).clone(),
            "P": prior.P.expand(*axes, -1, -1).clone(),
        }
        if self.task == "regression":
            state["noise"] = meta["log_noise"].exp().expand(*axes, -1).clone()
        return state

    def predict(self, meta: Tensors, state: Tensors, x: Tensor) -> Predictive:
        """Predictive of each row on its own."""
        phi = self.features(meta, x)  # (S, B, d)
        mean = torch.einsum("sbd,smdo->smbo", phi, state["W"])
        v = torch.einsum("sbd,smde,sbe->smb", phi, state["P"], phi).clamp_min(0.0)[..., None]
        return self._predictive(meta, mean, v, state.get("noise"))

    def update(self, meta: Tensors, state: Tensors, batch: Batch, window: Batch) -> tuple[Tensors, Evidence]:
        """Condition on the batch jointly, then let time pass by its rows."""
        del window
        phi = self.features(meta, batch.x) * batch.mask[..., None]  # (S, B, d); a padded row says nothing
        target = self._targets(batch)
        post = _Posterior(state["W"], state["P"])
        noise = state.get("noise")
        joint = torch.zeros(post.W.shape[:2], dtype=phi.dtype, device=phi.device)
        robust = joint
        for start in range(0, phi.shape[1], CHUNK_ROWS):
            rows = slice(start, start + CHUNK_ROWS)
            part = Batch(phi[:, rows], batch.y[:, rows], batch.mask[:, rows])
            post, gained = self._condition(meta, post, part, target[:, rows], noise)
            joint, robust = joint + gained.joint, robust + gained.robust
        moved = self._revert(meta, post, batch.mask.sum(1))
        new: Tensors = {"W": moved.W, "P": moved.P}
        if noise is not None:
            new["noise"] = self._track_noise(state, noise, phi, target, batch.mask)
        return new, Evidence(joint, robust)

    def reset(self, meta: Tensors, state: Tensors, alarm: Tensor, idle: Tensor, since: Batch | None) -> Tensors:
        """Every live member takes over the challenger, or the posterior of ``since``; an idle challenger restarts."""
        prior = self._prior(meta)
        W, P = state["W"], state["P"]
        if since is None:
            taken = _Posterior(W[:, -1:], P[:, -1:])
        else:
            fresh = self.init(meta, alarm.shape[0])
            learned, _ = self.update(meta, fresh, since, since)
            taken = _Posterior(learned["W"][:, :-1], learned["P"][:, :-1])
        live = alarm[:, None, None, None]
        restart = idle[:, None, None, None]
        new = dict(state)
        new["W"] = torch.cat([torch.where(live, taken.W, W[:, :-1]), torch.where(restart, prior.W, W[:, -1:])], dim=1)
        new["P"] = torch.cat([torch.where(live, taken.P, P[:, :-1]), torch.where(restart, prior.P, P[:, -1:])], dim=1)
        return new

    def meta_loss(self, meta: Tensors, episode: Episode) -> Tensor:
        """Mean loss of the query rows, each given the support and the query rows whose labels are known by then.

        With OU weights the labels are a Gaussian process: Cov(y_i, y_j) = σ²(γ^|i-j| φ_iᵀP0φ_j + δ_ij). One Cholesky
        factor L of that matrix gives all predictions of the prequential run that the server will see: with
        A = L⁻¹(K - I) and w = L⁻¹r, row i given the rows before k has mean m_i + Σ_{j<k} A_ji w_j and variance
        factor v_i = φ_iᵀP0φ_i - Σ_{j<k} A_ji². Tasks take turns over the forgetting times.
        """
        batch = Batch(*(torch.cat([s, q], dim=1) for s, q in zip(episode.support, episode.query, strict=True)))
        phi = self.features(meta, batch.x) * batch.mask[..., None]  # (T, n, d)
        tasks, rows = phi.shape[:2]
        taus = torch.tensor(self.tau_rows, dtype=phi.dtype, device=phi.device)[torch.arange(tasks) % self.members]
        age = torch.arange(rows, device=phi.device)
        apart = age[:, None] - age[None, :]
        decay = (1 - 1 / taus)[:, None, None] ** (0.5 * apart.abs())
        gram = (phi * meta["prior_log_var"].exp()) @ phi.mT * decay
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

    def _prior(self, meta: Tensors) -> _Posterior:
        """The prior as a posterior of one member: W0 (d, O) and diag P0 (d, d)."""
        return _Posterior(meta["prior_mean"], torch.diag(meta["prior_log_var"].exp()))

    def _targets(self, batch: Batch) -> Tensor:
        """Regression targets (S, B, O), or classes as ±1 one-hot (S, B, C)."""
        if self.task == "regression":
            return batch.y
        return F.one_hot(batch.y, self.outputs).to(batch.x.dtype) * 2 - 1

    def _logits(self, meta: Tensors, mean: Tensor, v: Tensor) -> Tensor:
        """a·m/√(1+b·v)."""
        return meta["log_scale"].exp() * mean / (1 + meta["log_spread"].exp() * v).sqrt()

    def _predictive(self, meta: Tensors, mean: Tensor, v: Tensor, noise: Tensor | None) -> Predictive:
        if noise is None:
            return Predictive(torch.log_softmax(self._logits(meta, mean, v), dim=-1), torch.empty(0))
        return Predictive(mean, noise[:, :, None, :] * (1 + v))

    def _condition(
        self, meta: Tensors, post: _Posterior, part: Batch, target: Tensor, noise: Tensor | None
    ) -> tuple[_Posterior, Evidence]:
        """Kalman update with one chunk of features ``part.x`` (S, b, d), and the chunk's evidence."""
        phi, mask = part.x[:, None], part.mask[:, None]  # (S, 1, b, ·)
        rows = phi.shape[-2]
        cross = phi @ post.P  # (S, M, b, d)
        gram = cross @ phi.mT
        factor = torch.linalg.cholesky(gram + torch.eye(rows, dtype=phi.dtype, device=phi.device))
        mean = phi @ post.W
        residual = (target[:, None] - mean) * mask[..., None]
        solved = torch.linalg.solve_triangular(factor, torch.cat([cross, residual], dim=-1), upper=False)
        gain, white = solved[..., : cross.shape[-1]], solved[..., cross.shape[-1] :]
        new = _Posterior(post.W + gain.mT @ white, post.P - gain.mT @ gain)
        if noise is None:
            v = gram.diagonal(dim1=-2, dim2=-1)[..., None]
            log_p = torch.log_softmax(self._logits(meta, mean, v), dim=-1)
            gained = masked_sum(-cross_entropy(log_p, part.y[:, None].expand(log_p.shape[:-1])), mask)
            return new, Evidence(gained, gained)
        log_scale = (factor.diagonal(dim1=-2, dim2=-1)[..., None].log() + 0.5 * noise[:, :, None, :].log()).sum(-1)
        z = white * noise[:, :, None, :].rsqrt()
        joint = masked_sum(-0.5 * (z.square() + LOG_2PI).sum(-1) - log_scale, mask)
        unit = torch.ones_like(z)
        robust = masked_sum(student_t_log_density(torch.zeros_like(z), unit, z) - log_scale, mask)
        return new, Evidence(joint, robust)

    def _revert(self, meta: Tensors, post: _Posterior, rows: Tensor) -> _Posterior:
        """Let ``rows`` (S,) rows of time pass: the pull towards the prior."""
        taus = torch.tensor([*self.tau_rows, self.challenger_tau_rows], dtype=post.W.dtype, device=post.W.device)
        gamma2 = (1 - 1 / taus)[None, :] ** rows[:, None]  # (S, M)
        gamma2 = gamma2.to(post.W.dtype)[..., None, None]
        gamma = gamma2.sqrt()
        prior = self._prior(meta)
        return _Posterior(gamma * post.W + (1 - gamma) * prior.W, gamma2 * post.P + (1 - gamma2) * prior.P)

    def _track_noise(self, state: Tensors, noise: Tensor, phi: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """σ² ← (1-r)σ² + r·min(e²/(1+v), 9σ²) row by row, e and v from the state before the batch."""
        mean = torch.einsum("sbd,smdo->smbo", phi, state["W"])
        v = torch.einsum("sbd,smde,sbe->smb", phi, state["P"], phi).clamp_min(0.0)[..., None]
        squared = (target[:, None] - mean).square() / (1 + v)
        return track_variance(noise, squared, mask[:, None], rate=self.noise_rate).clamp_min(NOISE_FLOOR)
