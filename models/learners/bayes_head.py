"""A Bayesian linear head on meta-learned features, forgetting by reversion to its prior."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor

from models.kalman import Conditioned, Posterior, condition, foresee
from models.learners import posteriors
from models.learners.archive import Archive
from models.learners.base import EVERY_TASK
from models.learners.basis import DRAWN, Basis
from models.learners.noise import Readout, SoftmaxReadout, TrackedNoise
from models.learners.unknown_noise import UnknownNoise
from models.losses import masked_mean
from models.networks import network_of
from models.types import Batch, Episode, Evidence, Predictive, TaskKind, Tensors

CHUNK_ROWS = 64
"""Rows solved jointly; longer batches are chained, which gives the same posterior and the same joint likelihood."""

NEVER_ROWS = 1e9
"""A forgetting time that no stream reaches."""
TAU_ROWS = (100.0, 500.0, 3000.0, NEVER_ROWS)
"""Forgetting times of the live members where nothing else is said, in rows."""
NOISES: Mapping[str, Callable[[int, float], Readout]] = MappingProxyType(
    {"tracked": TrackedNoise, "unknown": UnknownNoise}
)
"""What is known of the noise of numbers, by the name of the option."""
RIDGE = 1.0
"""Penalty of the regression that a prior without a body starts from."""


@dataclass(frozen=True, slots=True)
class BayesHead(posteriors.ClosedForm):
    """ALPaCA's head with an Ornstein-Uhlenbeck pull towards the meta-learned prior.

    y = Wᵀφ(x) + ε with W ~ N(W0, σ² P0) per output, P0 = AAᵀ. Between two rows time moves by one:
    W ← γW + (1-γ)W0 and P ← γ²P + (1-γ²)P0 with γ² = 1 - 1/τ. One member for each forgetting time τ, and a challenger
    that starts from the prior whenever the detector's statistic is at zero. How labels follow from φᵀW and
    v = φᵀPφ is told by ``readout``: a Gaussian of a tracked level, or a softmax over classes.

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
        noise: How a stream's noise level is known (regression): ``tracked``, a running mean of squared residuals, or
            ``unknown``, a posterior, with Student's tails in what is foreseen until rows have told the level.
        noise_rate: Rate, per row, at which a stream's noise level is followed, or what is known of it fades.
        archive_segments: Regimes that a stream remembers after an alarm, to go on from one that returns; 0: none.
        network: ``mlp``, or ``conv`` or ``conv_instance`` where the inputs are the pixels of a square image and
            ``hidden`` the blocks' filters.

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
    noise: str = "tracked"
    noise_rate: float = 0.005
    network: str = "mlp"
    archive_segments: int = 0

    def __post_init__(self) -> None:
        if self.noise not in NOISES:
            raise ValueError(f"unknown noise {self.noise!r}, choose one of {', '.join(NOISES)}")

    @property
    def basis(self) -> Basis:
        """The features."""
        body = network_of(self.network, self.inputs, self.hidden, last="tanh", prefix="body_") if self.hidden else None
        return Basis(self.inputs, body, self.skip, self.quadratic, self.random_features, self.start_columns)

    @property
    def readout(self) -> Readout:
        """How labels follow from the head's answers."""
        if self.task == "classification":
            return SoftmaxReadout(self.outputs)
        return NOISES[self.noise](self.outputs, self.noise_rate)

    @property
    def archive(self) -> Archive | None:
        """What remembers regimes, where two members or more move in an alarm."""
        takers = [member for member in range(self.members) if member not in self.keeps]
        return Archive(self.archive_segments, takers) if self.archive_segments and len(takers) > 1 else None

    @property
    def width(self) -> int:
        """Number of features d: a constant, the body's, the start's and, with ``skip``, the inputs and products."""
        return self.basis.width

    @property
    def stream_numbers(self) -> int:
        """Numbers of a stream's state that one member takes."""
        return self.width * (self.width + self.outputs)

    def meta_init(self, generator: torch.Generator) -> Tensors:
        """Draw the body, and a prior that expects little of every feature."""
        meta = self.basis.init(generator)
        meta["prior_mean"] = torch.zeros(self.width, self.outputs)
        if self.start_columns:
            meta["prior_mean"][-self.start_columns :] = torch.eye(self.outputs)
        if self.full_prior:
            meta["prior_factor"] = math.exp(-0.5) * torch.eye(self.width)
        else:
            meta["prior_log_var"] = torch.full((self.width,), -1.0)
        return {**meta, **self.readout.meta_init()}

    def features(self, meta: Tensors, x: Tensor) -> Tensor:
        """φ(x): (…, F) inputs to (…, d) features."""
        return self.basis.apply(meta, x)

    def warm_start(self, meta: Tensors, rows: Batch) -> Tensors:
        """Without a body the features are known: a ridge regression moves the prior's mean, its variance stays wide.

        On a start the mean stays where it is: with the start, which rows like these have chosen already.

        Its variance cannot be learned on the rows that the regression has seen: nothing seems to change there.
        Random frequencies stay as they were drawn.
        """
        drawn: Tensors = {name: meta[name] for name in DRAWN if name in meta}
        if self.hidden:
            return drawn
        wide: Tensors = {"prior_log_var": torch.zeros(self.width), **drawn}
        if self.start_columns:
            return {**wide, "prior_mean": meta["prior_mean"]}
        phi = self.features(meta, rows.x).flatten(0, 1)
        gram = phi.mT @ phi + RIDGE * torch.eye(self.width)
        left = self.readout.targets(rows).flatten(0, 1) - phi @ meta["prior_mean"]
        return {**wide, "prior_mean": meta["prior_mean"] + torch.linalg.solve(gram, phi.mT @ left)}

    def init(self, meta: Tensors, streams: int) -> Tensors:
        """All members and the challenger at the prior."""
        axes = (streams, self.members + 1)
        prior = self._prior(meta)
        state = {
            "W": prior.W.expand(*axes, -1, -1).clone(),
            "P": (prior.P * self._scales(prior.P)).expand(streams, -1, -1, -1).clone(),
        }
        past = self.archive.init(prior, streams) if self.archive is not None else {}
        return {**state, **self.readout.init(meta, *axes), **past}

    def predict(self, meta: Tensors, state: Tensors, x: Tensor) -> Predictive:
        """Predictive of each row on its own."""
        phi = self.features(meta, x)[:, None]  # (S, 1, B, d)
        v = ((phi @ state["P"]) * phi).sum(-1, keepdim=True)  # (S, M, B, 1)
        return self.readout.predictive(meta, state, phi @ state["W"], v)

    def update(self, meta: Tensors, state: Tensors, batch: Batch, window: Batch) -> tuple[Tensors, Evidence]:
        """Condition on the batch jointly, then let time pass by its rows."""
        del window
        phi = (self.features(meta, batch.x) * batch.mask[..., None])[:, None]  # (S, 1, B, d); padding says nothing
        target = self.readout.targets(batch)[:, None]
        post, parts = Posterior(state["W"], state["P"]), []
        gamma = self._gamma(phi, batch.mask.sum(1))
        for start in range(0, max(1, batch.mask.shape[1]), CHUNK_ROWS):
            rows, last = slice(start, start + CHUNK_ROWS), start + CHUNK_ROWS >= batch.mask.shape[1]
            post, part = condition(post, phi[:, :, rows], target[:, :, rows], gamma if last else None)
            parts.append(part)
        found = parts[0]
        if len(parts) == 1:
            mean, v = found.mean, found.v
        else:
            found = Conditioned(*(torch.cat(part, dim=2) for part in zip(*parts, strict=True)))
            mean, v = phi @ state["W"], ((phi @ state["P"]) * phi).sum(-1, keepdim=True)
        predictive = self.readout.predictive(meta, state, mean, v)
        joint, robust = self.readout.evidence(meta, state, found, batch)
        moved = self._revert(meta, post, gamma)
        new: Tensors = {"W": moved.W, "P": moved.P, **self.readout.learn(meta, state, mean, v, found, batch)}
        if self.archive is not None:
            kept, due = self.archive.age(state, batch.mask.sum(1))
            new = self.archive.recall({**new, **kept}, self._prior(meta), due, self.readout.level(new))
        return new, Evidence(joint, robust, predictive)

    def reset(self, meta: Tensors, state: Tensors, alarm: Tensor, idle: Tensor, since: Batch | None) -> Tensors:
        """Live members take over the challenger, or the posterior of ``since``; an idle challenger restarts.

        Members in ``keeps`` stay: they remember the longest, and an alarm may be false.
        """
        prior = self._prior(meta)
        weights = {name: state[name] for name in ("W", "P")}
        if since is None:
            taken = {name: value[:, -1:] for name, value in weights.items()}
        else:
            learned, _ = self.update(meta, self.init(meta, alarm.shape[0]), since, since)
            taken = {name: learned[name][:, :-1] for name in weights}
        live = alarm[:, None] & posteriors.takers(self.members, self.keeps, alarm.device)
        kept = {} if self.archive is None else self.archive.close(state, prior, alarm, self.readout.level(state))
        moved = posteriors.take_over(weights, live, taken, idle, prior._asdict())
        new = {**moved, **self.readout.reset(state, live, idle, handed_over=since is None), **kept}
        return new if self.archive is None else self.archive.recall(new, prior, alarm, self.readout.level(new))

    def keeping(self, places: Sequence[int]) -> "BayesHead":
        """The same with members that an alarm leaves as they are."""
        return replace(self, keeps=tuple(places))

    def trust(self, state: Tensors) -> Tensor:
        """More for members that go on from a remembered regime."""
        if self.archive is None:
            return state["W"].new_zeros(len(state["W"]), self.members)
        return self.archive.trust(state, self.members)

    def holding(self, members: int) -> "BayesHead":
        """The same head with members that learn by conjugate updates alone."""
        exact = replace(self, tau_rows=(math.inf,) * members, challenger_tau_rows=math.inf)
        return replace(exact, prior_scales=(), keeps=(), archive_segments=0)

    def foresee(self, meta: Tensors, state: Tensors, x: Tensor) -> Predictive:
        """The prior's answer, at each stream's own noise level."""
        phi = self.features(meta, x)[:, None]
        v = (self._cross(meta, phi) * phi).sum(-1, keepdim=True)
        return self.readout.predictive(meta, self.readout.anew(state), _each(phi, meta["prior_mean"]), v)

    def foreseen(self, meta: Tensors, state: Tensors, batch: Batch) -> Evidence:
        """How well the prior has foreseen a batch."""
        if batch.mask.shape[1] > CHUNK_ROWS:  # one chunk after the other, each given those before
            one, start = self._anew(meta, state)
            return one.update(meta, start, batch, batch)[1]
        phi = (self.features(meta, batch.x) * batch.mask[..., None])[:, None]
        found, _ = foresee(
            _each(phi, meta["prior_mean"]), self._cross(meta, phi), phi, self.readout.targets(batch)[:, None]
        )
        own = self.readout.anew(state)
        joint, robust = self.readout.evidence(meta, own, found, batch)
        return Evidence(joint, robust, self.readout.predictive(meta, own, found.mean, found.v))

    def restart(self, meta: Tensors, state: Tensors, chosen: Tensor, before: Tensors, batch: Batch) -> Tensors:
        """The challenger of the chosen streams becomes the prior that has learned the batch."""
        one, start = self._anew(meta, before)
        grown, _ = one.update(meta, start, batch, batch)
        return {**state, **posteriors.restart({name: state[name] for name in grown}, chosen, grown)}

    def _anew(self, meta: Tensors, state: Tensors) -> tuple["BayesHead", Tensors]:
        """The prior alone, at each stream's own noise level, and the head that moves it."""
        one = replace(self, tau_rows=(), prior_scales=(), keeps=(), archive_segments=0)
        start = one.init(meta, len(state["W"]))
        return one, {**start, **self.readout.anew(state)}

    def _cross(self, meta: Tensors, phi: Tensor) -> Tensor:
        """φᵀP0 (…, d)."""
        return _each(phi, self._prior(meta).P) if self.full_prior else phi * meta["prior_log_var"].exp()

    def succeed(self, meta: Tensors, state: Tensors, place: Tensor, idle: Tensor) -> Tensors:
        """The challenger with all it has learned takes a live member's place; an idle one goes back to the prior."""
        return posteriors.succeed(state, self.init(meta, 1), place, idle)

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
        residual = (self.readout.targets(batch) - start) * batch.mask[..., None]
        solved = torch.linalg.solve_triangular(factor, torch.cat([gram, residual], dim=-1), upper=False)
        known = solved[..., :rows] * (apart.mT > self.delay_rows)  # (T, j, i): row j's label is known to row i
        mean = start + known.mT @ solved[..., rows:]
        v = (gram.diagonal(dim1=-2, dim2=-1) - known.square().sum(-2)).clamp_min(0.0)[..., None]
        nll = self.readout.nll(meta, mean, v, batch, solved[..., rows:], apart - self.delay_rows - 1)
        judged = batch.mask.clone()
        judged[:, : episode.support.mask.shape[1]] = False
        return masked_mean(nll.flatten(), judged.flatten())

    def _prior(self, meta: Tensors) -> Posterior:
        """The prior as a posterior of one member: W0 (d, O) and P0 (d, d)."""
        if self.full_prior:
            return Posterior(meta["prior_mean"], meta["prior_factor"] @ meta["prior_factor"].mT)
        return Posterior(meta["prior_mean"], torch.diag(meta["prior_log_var"].exp()))

    def _scales(self, like: Tensor) -> Tensor:
        """(M, 1, 1) factors of the prior's covariance, the challenger's 1 last."""
        return _column((*(self.prior_scales or [1.0] * self.members), 1.0), like.dtype, like.device)[:, None, None]

    def _gamma(self, like: Tensor, rows: Tensor) -> Tensor:
        """γ (S, M, 1, 1) of ``rows`` (S,) rows of time."""
        taus = _column((*self.tau_rows, self.challenger_tau_rows), like.dtype, like.device)
        return (0.5 * torch.log1p(-1 / taus) * rows[:, None]).exp()[..., None, None]

    def _revert(self, meta: Tensors, post: Posterior, gamma: Tensor) -> Posterior:
        """The pull towards the prior, of a posterior whose covariance is scaled by γ² already and written into."""
        back = (1 - gamma.square()) * self._scales(gamma)
        if self.full_prior:
            prior = self._prior(meta).P
            post.P.addcmul_(back, prior)
        else:  # only the diagonal has somewhere to go back to
            post.P.diagonal(dim1=-2, dim2=-1).add_(back[..., 0] * meta["prior_log_var"].exp())
        return Posterior(torch.lerp(meta["prior_mean"], post.W, gamma), post.P)


def _each(phi: Tensor, shared: Tensor) -> Tensor:
    """(S, 1, B, d) by a matrix that all streams share, stream by stream: the same bits in whatever company."""
    return phi @ shared.expand(len(phi), 1, -1, -1)


@lru_cache(maxsize=256)
def _column(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Constants of a learner as a tensor, made once."""
    return torch.tensor(values, dtype=dtype, device=device)
