"""One examination for all learners; it runs over every entry of the table LEARNERS, on both kinds of task."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from models import losses
from models.learners import Learner
from models.metatrain import meta_train
from models.types import Batch, Episode, Predictive, Tensors

INPUTS = 2


class Subject(NamedTuple):
    """What is examined: a learner, what its outputs mean, and learned tensors before meta-training."""

    learner: Learner
    classify: bool
    outputs: int
    meta: Tensors
    inputs: int = INPUTS


def rows(subject: Subject, streams: int, count: int, seed: int, *, ragged: bool = False) -> Batch:
    """Random labelled rows; ragged ones have 1 to ``count`` rows a stream, the first stream all of them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(streams, count, subject.inputs, generator=generator)
    if subject.classify:
        y = torch.randint(0, subject.outputs, (streams, count), generator=generator)
    else:
        y = torch.randn(streams, count, subject.outputs, generator=generator)
    lengths = (
        torch.randint(1, count + 1, (streams, 1), generator=generator) if ragged else torch.full((streams, 1), count)
    )
    lengths[0] = count
    return Batch(x, y, torch.arange(count) < lengths)


def part(batch: Batch, streams: slice) -> Batch:
    """Some of the streams."""
    return Batch(*(tensor[streams] for tensor in batch))


def learn(subject: Subject, state: Tensors, batches: list[Batch]) -> Tensors:
    """Learn batches one after the other, each of them being the window too."""
    for batch in batches:
        state, _ = subject.learner.update(subject.meta, state, batch, batch)
    return state


def learned(subject: Subject, streams: int = 3) -> Tensors:
    """A state that has learned something."""
    batches = [rows(subject, streams, 4, seed, ragged=True) for seed in range(3)]
    return learn(subject, subject.learner.init(subject.meta, streams), batches)


def same(one: Tensors, other: Tensors) -> bool:
    """Bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def of(state: Tensors, streams: slice) -> Tensors:
    """The state of some of the streams."""
    return {name: tensor[streams] for name, tensor in state.items()}


def close(one: Tensor, other: Tensor, tolerance: float = 1e-5) -> bool:
    """Within ``tolerance`` relative to the greatest number."""
    return bool((one - other).abs().max() <= tolerance * max(1.0, float(other.abs().max())))


def check_shapes(subject: Subject) -> None:
    """States lead with S; there is a distribution for each member and the challenger; evidence too."""
    learner, meta = subject.learner, subject.meta
    state, batch = learner.init(meta, 3), rows(subject, 3, 5, 0)
    members = learner.members + 1
    assert all(tensor.shape[0] == 3 for tensor in state.values())
    predictive = learner.predict(meta, state, batch.x)
    assert predictive.mean.shape == (3, members, 5, subject.outputs)
    assert predictive.var.shape == ((0,) if subject.classify else predictive.mean.shape)
    new, evidence = learner.update(meta, state, batch, batch)
    assert evidence.joint.shape == evidence.robust.shape == (3, members)
    assert {name: tensor.shape for name, tensor in new.items()} == {name: t.shape for name, t in state.items()}
    assert {name: tensor.dtype for name, tensor in new.items()} == {name: t.dtype for name, t in state.items()}


def check_distributions_are_proper(subject: Subject) -> None:
    """After many batches probabilities still sum to one and variances are positive; all is finite."""
    state = learn(subject, subject.learner.init(subject.meta, 3), [rows(subject, 3, 4, seed) for seed in range(40)])
    assert all(tensor.isfinite().all() for tensor in state.values())
    predictive = subject.learner.predict(subject.meta, state, rows(subject, 3, 5, 99).x)
    assert predictive.mean.isfinite().all()
    if subject.classify:
        assert close(predictive.mean.exp().sum(-1), torch.ones(3, subject.learner.members + 1, 5))
    else:
        assert predictive.var.isfinite().all()
        assert (predictive.var > 0).all()


def check_survives_outliers(subject: Subject) -> None:
    """Rows far outside what was seen leave a finite state."""
    batch = rows(subject, 2, 4, 0)
    wild = batch._replace(x=50.0 * batch.x, y=batch.y if subject.classify else 50.0 * batch.y)
    state = learn(subject, learned(subject, 2), [wild, batch, wild])
    assert all(tensor.isfinite().all() for tensor in state.values())


def check_padding_has_no_effect(subject: Subject) -> None:
    """What padded rows hold changes nothing, and cutting them off changes no more than the last digits."""
    learner, meta, state = subject.learner, subject.meta, learned(subject)
    batch = rows(subject, 3, 6, 11, ragged=True)
    outside = ~batch.mask
    x = torch.where(outside.unsqueeze(-1), 7.0, batch.x)
    y = torch.where(outside, 0, batch.y) if subject.classify else torch.where(outside.unsqueeze(-1), 1e3, batch.y)
    spoiled = batch._replace(x=x, y=y)
    clean_state, clean = learner.update(meta, state, batch, batch)
    spoiled_state, dirty = learner.update(meta, state, spoiled, spoiled)
    assert same(clean_state, spoiled_state)
    assert torch.equal(clean.joint, dirty.joint)
    for stream in range(3):
        own = slice(stream, stream + 1)
        length = int(batch.mask[stream].sum())
        short = Batch(*(tensor[own, :length] for tensor in batch))
        cut, evidence = learner.update(meta, of(state, own), short, short)
        assert all(close(cut[name], clean_state[name][own]) for name in cut)
        assert close(evidence.joint, clean.joint[own])
    query = rows(subject, 3, 4, 12, ragged=True)
    loss = learner.meta_loss(meta, Episode(batch, query))
    assert close(learner.meta_loss(meta, Episode(spoiled, query)), loss)


def check_batched_equals_single(subject: Subject) -> None:
    """S streams at once learn and predict what each of them does alone."""
    learner, meta = subject.learner, subject.meta
    batches = [rows(subject, 4, 5, seed, ragged=True) for seed in range(4)]
    together = learn(subject, learner.init(meta, 4), batches)
    x = rows(subject, 4, 3, 9).x
    predicted = learner.predict(meta, together, x)
    for stream in range(4):
        own = slice(stream, stream + 1)
        alone = learn(subject, learner.init(meta, 1), [part(batch, own) for batch in batches])
        assert all(close(alone[name], together[name][own]) for name in alone)
        assert close(learner.predict(meta, alone, x[own]).mean, predicted.mean[own])


def check_empty_batch_keeps_state(subject: Subject) -> None:
    """A stream without rows keeps its state bit for bit while its neighbours learn."""
    state, batch = learned(subject), rows(subject, 3, 4, 21)
    batch.mask[1] = False
    new, evidence = subject.learner.update(subject.meta, state, batch, rows(subject, 3, 4, 22))
    assert same(of(new, slice(1, 2)), of(state, slice(1, 2)))
    assert not same(of(new, slice(0, 1)), of(state, slice(0, 1)))
    assert torch.equal(evidence.joint[1], torch.zeros(subject.learner.members + 1))


def check_update_is_pure(subject: Subject) -> None:
    """An update leaves what it was given as it was, repeats exactly, and drags no graph along."""
    learner = subject.learner
    state, batch = learned(subject), rows(subject, 3, 4, 31)
    kept = {name: tensor.clone() for name, tensor in state.items()}
    meta = {name: tensor.clone() for name, tensor in subject.meta.items()}
    with torch.no_grad():
        first, one = learner.update(subject.meta, state, batch, batch)
        second, other = learner.update(subject.meta, state, batch, batch)
    assert same(state, kept)
    assert same(subject.meta, meta)
    assert same(first, second)
    assert torch.equal(one.joint, other.joint)
    assert not any(tensor.requires_grad for tensor in (*first.values(), one.joint, one.robust, *one.predictive[:2]))


def check_generator_decides(subject: Subject) -> None:
    """The same seed draws the same tensors; another seed others."""
    draws = [subject.learner.meta_init(torch.Generator().manual_seed(seed)) for seed in (5, 5, 6)]
    assert same(draws[0], draws[1])
    assert not same(draws[0], draws[2])


def check_evidence_is_of_the_state_before(subject: Subject) -> None:
    """For a single row, joint evidence is the log-likelihood under what ``predict`` said of it."""
    state, batch = learned(subject), rows(subject, 3, 1, 41)
    predictive = subject.learner.predict(subject.meta, state, batch.x)
    _, evidence = subject.learner.update(subject.meta, state, batch, batch)
    assert close(evidence.joint, _log_likelihood(subject, predictive, batch), 1e-4)
    assert close(evidence.predictive.mean, predictive.mean)
    assert evidence.predictive.var.shape == predictive.var.shape
    if subject.classify:
        assert torch.equal(evidence.joint, evidence.robust)


def check_new_stream_is_its_own_challenger(subject: Subject) -> None:
    """At the meta-initialization live members and challenger predict the same."""
    mean = subject.learner.predict(subject.meta, subject.learner.init(subject.meta, 2), rows(subject, 2, 5, 51).x).mean
    assert close(mean, mean[:, -1:].expand_as(mean))


def check_reset_touches_only_alarmed_streams(subject: Subject) -> None:
    """Without alarm and not idle a stream keeps its state bit for bit."""
    state, alarm = learned(subject), torch.tensor([True, False, False])
    idle = torch.zeros(3, dtype=torch.bool)
    for since in (None, rows(subject, 3, 4, 61)):
        given = {name: value.clone() for name, value in state.items()}
        new = subject.learner.reset(subject.meta, given, alarm, idle, since)
        assert same(of(new, slice(1, 3)), of(state, slice(1, 3)))
        assert not same(of(new, slice(0, 1)), of(state, slice(0, 1)))


def check_reset_takes_over_the_challenger(subject: Subject) -> None:
    """Without rows, what is live after an alarm predicts what the challenger predicted."""
    state, x = learned(subject), rows(subject, 3, 4, 71).x
    challenger = subject.learner.predict(subject.meta, state, x).mean[:, -1:]
    alarm, idle = torch.ones(3, dtype=torch.bool), torch.zeros(3, dtype=torch.bool)
    new = subject.learner.reset(subject.meta, state, alarm, idle, None)
    live = subject.learner.predict(subject.meta, new, x).mean[:, :-1]
    assert close(live, challenger.expand_as(live))


def check_reset_adapts_afresh_on_given_rows(subject: Subject) -> None:
    """With rows, an alarm leaves what a new stream would know after them; with none of them, a new stream."""
    learner, meta, x = subject.learner, subject.meta, rows(subject, 3, 4, 81).x
    since = rows(subject, 3, 6, 82, ragged=True)
    since.mask[2] = False
    alarm = torch.ones(3, dtype=torch.bool)
    new = learner.reset(meta, learned(subject), alarm, alarm, since)
    fresh = learn(subject, learner.init(meta, 3), [since])
    live = learner.predict(meta, new, x).mean[:, :-1]
    assert close(live, learner.predict(meta, fresh, x).mean[:, :-1])
    assert close(live[2], learner.predict(meta, learner.init(meta, 3), x).mean[2, :-1])


def check_idle_challenger_is_the_initialization(subject: Subject) -> None:
    """Where the detector has no suspicion the challenger starts again; the live members stay."""
    learner, meta, state, x = subject.learner, subject.meta, learned(subject), rows(subject, 3, 4, 91).x
    quiet, idle = torch.zeros(3, dtype=torch.bool), torch.ones(3, dtype=torch.bool)
    before = learner.predict(meta, state, x).mean
    after = learner.predict(meta, learner.reset(meta, state, quiet, idle, None), x).mean
    assert torch.equal(after[:, :-1], before[:, :-1])
    assert close(after[:, -1], learner.predict(meta, learner.init(meta, 3), x).mean[:, -1])


def check_meta_loss_reaches_every_learned_tensor(subject: Subject) -> None:
    """The meta-loss is a finite number whose gradient is finite everywhere and somewhere not zero in each tensor."""
    meta = {
        name: (tensor + 0.01 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(1))).requires_grad_()
        for name, tensor in subject.meta.items()
    }
    episode = Episode(rows(subject, 8, 6, 101, ragged=True), rows(subject, 8, 5, 102))
    loss = subject.learner.meta_loss(meta, episode)
    assert loss.shape == ()
    assert loss.isfinite()
    gradients = torch.autograd.grad(loss, list(meta.values()))
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert [name for name, gradient in zip(meta, gradients, strict=True) if not gradient.any()] == []


def check_adaptation_helps(subject: Subject) -> None:
    """After a brief meta-training, ten rows of a new task lower the loss on its other rows by a fifth, and more."""
    trained = meta_train(
        subject.learner, lambda g: _family(subject, 16, g), generator=torch.Generator().manual_seed(0),
        iterations=80, outer_lr=1e-2,
    )  # fmt: skip
    episode = _family(subject, 64, torch.Generator().manual_seed(1))
    state = subject.learner.init(trained.meta, 64)
    before = _loss(subject, trained.meta, state, episode.query)
    state, _ = subject.learner.update(trained.meta, state, episode.support, episode.support)
    assert _loss(subject, trained.meta, state, episode.query) < 0.8 * before


def _family(subject: Subject, tasks: int, generator: torch.Generator) -> Episode:
    """Tasks that differ in a direction w: y = ± x·w in each output, or the class whose w·x is greatest."""
    count, queries = 10, 10
    x = torch.randn(tasks, count + queries, INPUTS, generator=generator)
    w = torch.tensor([1.0, 0.0]) + 0.7 * torch.randn(tasks, subject.outputs, INPUTS, generator=generator)
    scores = x @ w.mT
    y = scores.argmax(-1) if subject.classify else scores
    mask = torch.ones(tasks, count + queries, dtype=torch.bool)
    support = Batch(x[:, :count], y[:, :count], mask[:, :count])
    return Episode(support, Batch(x[:, count:], y[:, count:], mask[:, count:]))


def _loss(subject: Subject, meta: Tensors, state: Tensors, batch: Batch) -> float:
    """Cross-entropy or mean squared error of the first live member."""
    mean = subject.learner.predict(meta, state, batch.x).mean[:, 0]
    loss = losses.cross_entropy(mean, batch.y) if subject.classify else losses.squared_error(mean, batch.y)
    return float(loss.mean())


def _log_likelihood(subject: Subject, predictive: Predictive, batch: Batch) -> Tensor:
    y = batch.y.unsqueeze(1)
    if subject.classify:
        return -losses.cross_entropy(predictive.mean, y).sum(-1)
    if predictive.df is not None:
        return -losses.student_t_nll(predictive.mean, predictive.var, predictive.df[..., None, None], y).sum(-1)
    return -losses.gaussian_nll(predictive.mean, predictive.var, y).sum(-1)


CHECKS: tuple[Callable[[Subject], None], ...] = (
    check_shapes,
    check_distributions_are_proper,
    check_survives_outliers,
    check_padding_has_no_effect,
    check_batched_equals_single,
    check_empty_batch_keeps_state,
    check_update_is_pure,
    check_generator_decides,
    check_evidence_is_of_the_state_before,
    check_new_stream_is_its_own_challenger,
    check_reset_touches_only_alarmed_streams,
    check_reset_takes_over_the_challenger,
    check_reset_adapts_afresh_on_given_rows,
    check_idle_challenger_is_the_initialization,
    check_meta_loss_reaches_every_learned_tensor,
    check_adaptation_helps,
)
