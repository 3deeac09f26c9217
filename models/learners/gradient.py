"""Learners that adapt a network by a few gradient steps from a meta-learned initialization.

What they share: the inner loop, the noise model, serving and the meta-objective. They differ in what the steps move,
in the rates, and in the gradient of the outer loop.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from models import losses
from models.learners.backprop import WRITTEN_OUT, descend, loss_gradient
from models.learners.base import EVERY_TASK
from models.networks import Mlp, Network, network_of, per_stream
from models.types import Batch, Episode, Evidence, Predictive, TaskKind, Tensors

TILE_STREAMS = 64
"""Streams that adapt together where nothing is differentiated: what they need stays in the processor's cache."""
_LEAST_VARIANCE = 1e-6
_NOISE_PACE = 4.0  # the noise model is fitted at this multiple of the outer rate: short trainings must get there too
_NORM_FLOOR = 1e-12  # under the square root, whose slope at zero is infinite


class _Noise(NamedTuple):
    """What the errors of an adapted network are made of: var(k rows of support) = noise + spread·e^(−k/rows)."""

    noise: Tensor  # (O,) what stays
    spread: Tensor  # (O,) how far tasks are from the initialization
    rows: Tensor  # () how many rows of support it takes to get there


@dataclass(frozen=True)
class GradientLearner(ABC):
    """θ' = θ − rate ⊙ ∇θ mean loss on the support, ``steps`` times; one live member.

    Serving starts from the meta-initialization with every batch, on the window, so that steps do not add up. The
    gradient of each stream is clipped to the norm ``gradient_clip``; where it is not finite the step is not taken, so
    that no number of steps gives NaN. The challenger is the meta-initialization.

    Attributes:
        task: ``regression`` (squared error) or ``classification`` (cross-entropy).
        inputs: F.
        outputs: O outputs, or C classes.
        hidden: Widths of the hidden layers, or filters of the blocks.
        network: ``mlp``, or ``conv`` or ``conv_instance`` where the inputs are the pixels of a square image.
        activation: ``relu`` or ``tanh``.
        inner_lr: Rate of the inner steps, or where learned rates start.
        steps: Inner steps, in meta-training and when serving.
        first_order: Leave second derivatives out of the meta-gradient.
        gradient_clip: Greatest norm of a stream's inner gradient.
    """

    tasks: ClassVar[frozenset[TaskKind]] = EVERY_TASK

    task: TaskKind
    inputs: int
    outputs: int
    hidden: tuple[int, ...] = (40, 40)
    activation: str = "relu"
    inner_lr: float = 0.01
    steps: int = 1
    first_order: bool = False
    gradient_clip: float = 100.0
    network: str = "mlp"

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))  # a list, when read from JSON
        if self.steps < 0:
            raise ValueError(f"steps must not be negative, got {self.steps}")
        if not (self.inner_lr > 0.0 and self.gradient_clip > 0.0):
            raise ValueError(f"inner_lr and gradient_clip must be above 0, got {self.inner_lr}, {self.gradient_clip}")
        _ = self.net  # says what is wrong with it

    @property
    def net(self) -> Network:
        """The network that is adapted."""
        return network_of(self.network, self.inputs, self.hidden, self.outputs, activation=self.activation)

    @property
    def fast_names(self) -> tuple[str, ...]:
        """Tensors that the inner steps move, each stream its own; all others are shared."""
        return self.net.names

    def start(self, meta: Tensors) -> Tensors:
        """The tensors ``fast_names`` before the first inner step, without a stream axis."""
        return {name: meta[name] for name in self.fast_names}

    def apply(self, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Outputs (S, B, O) for rows ``x`` (S, B, F), given shared and fast tensors together."""
        return self.net.apply(tensors, x)

    @property
    def members(self) -> int:
        """One live member."""
        return 1

    @property
    def adaptable(self) -> frozenset[str]:
        """A stream may choose both its window and its steps."""
        return frozenset({"window_rows", "steps"})

    @property
    def keeps_challenger(self) -> bool:
        """The challenger is the initialization: re-adapting needs the rows again."""
        return False

    @property
    def sequential(self) -> bool:
        """All query rows are judged from the support alone."""
        return False

    @abstractmethod
    def rates(self, meta: Tensors, step: int) -> Mapping[str, Tensor]:
        """Rate of each fast tensor at an inner step, broadcastable to the tensor."""

    @abstractmethod
    def rates_init(self) -> Tensors:
        """Learned tensors that ``rates`` needs, before meta-training."""

    def meta_init(self, generator: torch.Generator) -> Tensors:
        """Draw the initialization; rates start at ``inner_lr``, and for regression the noise at one standard unit."""
        meta = self.net.init(generator) | self.rates_init()
        if self.task == "regression":
            meta["free_noise"] = torch.zeros(self.outputs)
            meta["free_spread"] = torch.zeros(self.outputs)
            meta["free_rows"] = torch.full((), 0.25)
        return meta

    def warm_start(self, meta: Tensors, rows: Batch) -> Tensors:
        """Nothing has a closed form."""
        del meta, rows
        return {}

    def init(self, meta: Tensors, streams: int) -> Tensors:
        """Streams at the initialization: ``rows`` of support, the fast tensors and, for regression, ``noise``."""
        fast = per_stream(self.start(meta), self.fast_names, streams)
        state = {name: tensor.clone() for name, tensor in fast.items()}
        state["rows"] = torch.zeros(streams, dtype=meta["bias_0"].dtype)
        if self.task == "regression":
            state["noise"] = _noise(meta).noise.expand(streams, -1).clone()
        return state

    @torch.no_grad()
    def predict(self, meta: Tensors, state: Tensors, x: Tensor) -> Predictive:
        """Predictive distributions of the adapted network, then of the initialization."""
        live, challenger = self.apply(meta | state, x), self.apply(meta | self.start(meta), x)
        outputs = torch.stack([live, challenger], dim=1)  # (S, 2, B, O)
        if self.task == "classification":
            return Predictive(torch.log_softmax(outputs, dim=-1), outputs.new_empty(0))
        support = torch.stack([state["rows"], torch.zeros_like(state["rows"])], dim=1)
        var = _variance(meta, state["noise"].unsqueeze(1), support)  # (S, 2, O)
        return Predictive(outputs, var.unsqueeze(2).expand_as(outputs))

    @torch.no_grad()
    def update(self, meta: Tensors, state: Tensors, batch: Batch, window: Batch) -> tuple[Tensors, Evidence]:
        """Score the batch, then take the steps from the initialization on the window."""
        predictive = self.predict(meta, state, batch.x)
        evidence = self._evidence(predictive, batch)
        new = self._fast_state(meta, window)
        if self.task == "regression":
            new["noise"] = self._tracked_noise(state["noise"], predictive, batch)
        return _where(batch.mask.any(1), new, state), evidence

    @torch.no_grad()
    def reset(self, meta: Tensors, state: Tensors, alarm: Tensor, idle: Tensor, since: Batch | None) -> Tensors:  # noqa: ARG002  # the challenger is always at the initialization
        """Re-adapt alarmed streams on ``since``; without rows they go back to the initialization. The noise stays."""
        if not bool(alarm.any()):
            return state
        fresh = self.init(meta, alarm.shape[0]) if since is None else self._fast_state(meta, since)
        return state | _where(alarm, {name: fresh[name] for name in (*self.fast_names, "rows")}, state)

    def meta_loss(self, meta: Tensors, episode: Episode, progress: float = 1.0) -> Tensor:
        """Loss on the queries after adapting to the supports; for regression also what fits the noise model."""
        loss, adapted = self.judged(meta, episode, progress)
        return loss if self.task == "classification" else loss + self._noise_loss(meta, adapted, episode)

    def query_loss(self, meta: Tensors, episode: Episode, progress: float = 1.0) -> Tensor:
        """The part of ``meta_loss`` that trains the initialization and the rates: mean query loss after the steps."""
        return self.judged(meta, episode, progress)[0]

    def step_weights(self, progress: float) -> Sequence[float]:  # noqa: ARG002  # for those that judge every step
        """Weights, summing to one, of the query losses after the last inner steps, as many as there are weights."""
        return (1.0,)

    def adapt(self, meta: Tensors, support: Batch, *, differentiable: bool = False) -> Tensors:
        """The fast tensors, (S, …) each, after the inner steps on ``support``; without rows, the initialization.

        Args:
            meta: Learned tensors.
            support: Rows of S streams or tasks.
            differentiable: Keep the graph back to ``meta``, if that asks for one. Otherwise none survives the call.
        """
        streams = support.x.shape[0]
        if differentiable or streams <= TILE_STREAMS:
            return self._last(meta, support, differentiable=differentiable)
        tiles = [
            Batch(*(value[start : start + TILE_STREAMS] for value in support))
            for start in range(0, streams, TILE_STREAMS)
        ]
        parts = [self._last(meta, tile, differentiable=False) for tile in tiles]
        return {name: torch.cat([part[name] for part in parts]) for name in self.fast_names}

    def _last(self, meta: Tensors, support: Batch, *, differentiable: bool) -> Tensors:
        """Where the inner steps on ``support`` end."""
        fast: Tensors = {}
        for fast in self._path(meta, support.x.shape[0], [support] * self.steps, differentiable=differentiable):  # noqa: B007  # the last
            pass
        return fast

    def judged(self, meta: Tensors, episode: Episode, progress: float) -> tuple[Tensor, Tensors]:
        """Query loss, mean over tasks and weighted over the inner steps; and the fast tensors (T, …) after the last."""
        support = episode.support
        path = list(self._path(meta, support.x.shape[0], [support] * self.steps, differentiable=True))
        weights = self.step_weights(progress)
        judged = zip(weights, path[-len(weights) :], strict=True)
        parts = [weight * self._loss(meta | fast, episode.query).mean() for weight, fast in judged if weight > 0.0]
        return torch.stack(parts).sum(), path[-1]

    def _path(
        self, meta: Tensors, streams: int, batches: Sequence[Batch], *, differentiable: bool
    ) -> Iterator[Tensors]:
        """The fast tensors at the start, then after the step on each batch."""
        fast = per_stream(self.start(meta), self.fast_names, streams)
        differentiable = differentiable and torch.is_grad_enabled() and any(t.requires_grad for t in meta.values())
        if not differentiable:
            meta = {name: tensor.detach() for name, tensor in meta.items()}
            fast = {name: tensor.detach() for name, tensor in fast.items()}
        elif not all(tensor.requires_grad for tensor in fast.values()):  # a start that is not learned
            fast = {name: tensor.detach().requires_grad_() for name, tensor in fast.items()}
        yield fast
        net = self._written_out
        for step, batch in enumerate(batches):
            rates = self.rates(meta, step)
            if net is not None and not differentiable and all(rate.dim() == 0 for rate in rates.values()):
                steady = {name: float(rate) for name, rate in rates.items()}
                fast = descend(net, self.task, fast, batch, steady, self.gradient_clip)
            else:
                gradient = self._gradient(meta, fast, batch, differentiable=differentiable)
                fast = {name: _descend(fast[name], rates[name], gradient[name]) for name in fast}
            yield fast

    @property
    def _written_out(self) -> Mlp | None:
        """The network, where the steps move all of it and its gradient is written out."""
        net = self.net
        if isinstance(net, Mlp) and self.fast_names == net.names and self.activation in WRITTEN_OUT:
            return net
        return None

    def _gradient(self, meta: Tensors, fast: Tensors, batch: Batch, *, differentiable: bool) -> Tensors:
        """Clipped gradient of each stream's loss. The losses are independent, so their sum gives all gradients."""
        net = self._written_out
        if net is not None:
            with torch.set_grad_enabled(differentiable and not self.first_order):
                gradient = loss_gradient(net, self.task, fast, batch)
            return self._guarded(gradient, differentiable=differentiable)
        with torch.inference_mode(mode=False), torch.enable_grad():
            if not differentiable:  # copies, since autograd does not take what inference mode made
                fast = {name: tensor.detach().clone().requires_grad_() for name, tensor in fast.items()}
                batch = Batch(*(tensor.clone() for tensor in batch))
            create_graph = differentiable and not self.first_order
            total = self._loss(meta | fast, batch).sum()
            gradients = torch.autograd.grad(total, list(fast.values()), create_graph=create_graph)
            return self._guarded(dict(zip(fast, gradients, strict=True)), differentiable=differentiable)

    def _guarded(self, gradient: Tensors, *, differentiable: bool) -> Tensors:
        """Each stream's gradient, scaled down to the norm ``gradient_clip`` where it is longer, zero where not finite.

        In meta-training it stays as it is where not finite, so that the iteration is seen to have failed.
        """
        with torch.no_grad():
            norm = torch.cat([tensor.flatten(1) for tensor in gradient.values()], dim=1).norm(dim=1)  # (S,)
        if bool((norm <= self.gradient_clip).all()):
            return gradient  # the usual case, and a good part of an iteration's time
        scale = (self.gradient_clip / _norm(gradient)).clamp(max=1.0)
        clipped = {name: _along(scale, tensor) * tensor for name, tensor in gradient.items()}
        if differentiable:
            return clipped
        return _where(norm.isfinite(), clipped, {name: torch.zeros_like(tensor) for name, tensor in clipped.items()})

    def _loss(self, tensors: Tensors, batch: Batch) -> Tensor:
        """Mean loss over the rows of each stream: (S,)."""
        outputs = self.apply(tensors, batch.x)
        if self.task == "classification":
            rows = losses.cross_entropy(torch.log_softmax(outputs, dim=-1), batch.y)
        else:
            rows = losses.squared_error(outputs, batch.y)
        return losses.masked_mean(rows, batch.mask)

    def _fast_state(self, meta: Tensors, window: Batch) -> Tensors:
        fast = self.adapt(meta, window)
        return fast | {"rows": window.mask.sum(1).to(window.x.dtype)}

    def _evidence(self, predictive: Predictive, batch: Batch) -> Evidence:
        y, mask = batch.y.unsqueeze(1), batch.mask.unsqueeze(1)
        if self.task == "classification":
            joint = losses.masked_sum(-losses.cross_entropy(predictive.mean, y), mask)
            return Evidence(joint, joint, predictive)
        joint = losses.masked_sum(-losses.gaussian_nll(predictive.mean, predictive.var, y), mask)
        robust = losses.masked_sum(losses.student_t_log_density(predictive.mean, predictive.var, y), mask)
        return Evidence(joint, robust, predictive)

    def _tracked_noise(self, noise: Tensor, predictive: Predictive, batch: Batch) -> Tensor:
        """The stream's noise after a batch: its squared errors count as far as they are not the initialization's."""
        share = noise.unsqueeze(1) / predictive.var[:, 0]  # (S, B, O)
        squared = (predictive.mean[:, 0] - batch.y).square()
        return losses.track_variance(noise, share * squared, batch.mask)

    def _noise_loss(self, meta: Tensors, adapted: Tensors, episode: Episode) -> Tensor:
        """Gaussian nll of the query errors after adapting, and at the initialization; the errors are constants here."""
        query, counted = episode.query, episode.query.mask.unsqueeze(-1)
        with torch.no_grad():
            after = self.apply(meta | adapted, query.x)
            before = self.apply(meta | self.start(meta), query.x)
            squared = (torch.stack([after, before]) - query.y).square()  # (2, T, B, O)
            mean = torch.where(counted, squared, 0.0).sum(2) / counted.sum(1).clamp(min=1)  # a task has one variance
            rows = episode.support.mask.sum(1).to(mean.dtype)
            support = torch.stack([rows, torch.zeros_like(rows)])  # (2, T)
        var = _variance(meta, _noise(meta).noise, support)  # (2, T, O)
        nll = losses.gaussian_nll(mean.sqrt(), var, torch.zeros_like(mean))  # (2, T)
        return torch.where(query.mask.any(1), nll, 0.0).mean(1).sum()


def _noise(meta: Tensors) -> _Noise:
    noise, spread, rows = ((_NOISE_PACE * meta[f"free_{part}"]).exp() for part in _Noise._fields)
    return _Noise(noise + _LEAST_VARIANCE, spread, rows)


def _variance(meta: Tensors, noise: Tensor, support: Tensor) -> Tensor:
    """Predictive variance (…, O) of a network adapted on ``support`` (…) rows, whose stream has noise (…, O)."""
    model = _noise(meta)
    return noise + model.spread * torch.exp(-support / model.rows).unsqueeze(-1)


def _norm(tensors: Mapping[str, Tensor]) -> Tensor:
    """(S,): Euclidean norm of all of a stream's numbers."""
    squares = [tensor.square().flatten(1).sum(1) for tensor in tensors.values()]
    return torch.stack(squares).sum(0).add(_NORM_FLOOR).sqrt()


def _along(values: Tensor, like: Tensor) -> Tensor:
    """Values (S,) shaped to scale a tensor (S, …)."""
    return values.reshape(-1, *[1] * (like.dim() - 1))


def _descend(tensor: Tensor, rate: Tensor, gradient: Tensor) -> Tensor:
    """``tensor − rate·gradient``; in one operation where the rate is one number that is not learned."""
    if rate.dim() == 0 and not rate.requires_grad:
        return torch.add(tensor, gradient, alpha=-float(rate))
    return tensor - rate * gradient


def _where(chosen: Tensor, new: Mapping[str, Tensor], old: Mapping[str, Tensor]) -> Tensors:
    """Per stream, the new tensors where chosen (S,) and otherwise the old ones, bit for bit."""
    return {name: torch.where(_along(chosen, tensor), tensor, old[name]) for name, tensor in new.items()}
