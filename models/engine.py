"""Many streams of one model, hot in slabs of tensors, moved together by ``adaptation.step``."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models import adaptation, combination, reverting
from models.answers import (
    GLANCE,
    Decision,
    Outcome,
    Prediction,
    Status,
    answers_of,
    instead,
    outcomes_of,
    scores_of,
    served_scores,
    statuses,
)
from models.bundle import Model, model_fingerprint
from models.features import Scales, encode_rows, lag_columns, standardise
from models.memory import Rows, lags_now
from models.plan import Plan
from models.ragged import by_size, mask_of, padded
from models.readaptation import Decisions
from models.slab import Slab
from models.stream_config import StreamConfig, configure
from models.targets import encode_targets, to_scale
from models.types import FloatArray, Label, Tensors, Value
from models.vocabulary import Names, extended, names_of, written
from models.watching import KEYS, InputShift, fresh_rows, pack_inputs, unpack_inputs, watch_inputs

TILE_BYTES = 2**26
"""Most bytes of states that are moved at once: what is made on the way is as large, and has to stay near the processor
and within what ``keep_freed_memory`` keeps."""


class Feedback(NamedTuple):
    """Labelled rows of one stream: encoded inputs (B, D) and targets (B, O).

    ``asked`` (B, L + K), or its first L columns alone, is what a ``Prediction`` told of the rows: given where labels
    came late, and on replay; None takes the stream's present lag columns. ``decision`` is given on replay; None asks
    the detector. ``watched`` (B,) tells which rows were given to ``Engine.watch`` when they were predicted; None: none.
    ``labels`` are the targets as they were before ``encode_targets``, needed where classes are open.
    """

    slot: int
    inputs: FloatArray
    targets: FloatArray
    asked: FloatArray | None = None
    decision: Decision | None = None
    watched: npt.NDArray[np.bool_] | None = None
    labels: Sequence[Label] = ()


class NewState(NamedTuple):
    """One stream's new state: a row of the batch of states that it was computed in."""

    batch: Tensors
    row: int


class Tick(NamedTuple):
    """New states that are computed and not served yet; ``Engine.apply`` serves them. Entries belong together."""

    slots: list[int]
    states: list[NewState]
    outcomes: list[Outcome]


class Watched(NamedTuple):
    """What rows without labels did to a stream.

    Attributes:
        moved: Set where its inputs were found to have moved.
        state: As in ``Status``.
        snapshot: What is known of its inputs, for ``Engine.restore_inputs``.
    """

    moved: InputShift | None
    state: str
    snapshot: bytes


class Engine:
    """Hot streams of one model and configuration. Thread-safe: states change in ``apply`` alone, and in one piece."""

    def __init__(self, model: Model, config: StreamConfig | None = None, *, device: str = "cpu") -> None:
        """Build the model's moving parts.

        Args:
            model: A meta-trained initialization.
            config: What differs from the model's own settings.
            device: Where tensors live.

        Raises:
            InputError: ``config`` has a field that the model's experts or detector lack, or a value out of bounds.
        """
        self.model = model
        self.config = config or StreamConfig()
        self._spec = configure(model.spec, self.config)
        self._plan = Plan.of(self._spec)
        self._scales = Scales.of(self._spec.features)
        self._meta = {name: tensor.to(device) for name, tensor in model.meta.items()}
        self._device = torch.device(device)
        self._lock = threading.Lock()
        with torch.no_grad():
            self.fingerprint = model_fingerprint(model)
            self._slab = Slab(adaptation.init(self._plan, self._meta, 1), self.fingerprint)
            self._fresh = adaptation.initial_state(self._plan, self._meta)
        self._answering = [key for key in self._slab.initial if adaptation.asked(key)]

    @property
    def stream_bytes(self) -> int:
        """Memory that the state of one stream takes."""
        return self._slab.stream_bytes

    @property
    def tick_share(self) -> float:
        """What share of a tick one stream's state takes, so that ticks of large states stay within ``TILE_BYTES``."""
        return self.stream_bytes / TILE_BYTES

    def create(self, labels_of: bytes | None = None) -> int:
        """A slot at the meta-initialization.

        ``labels_of`` is a snapshot of this model under another configuration, the labels of which it takes over.
        """
        state = None if labels_of is None else self._slab.initial | _names_in(self._slab.unpacked(labels_of))
        with self._lock:
            return self._slab.take(state)

    def restore(self, snapshot: bytes) -> int:
        """A slot with a snapshot's state, byte for byte.

        Raises:
            SnapshotError: It is damaged or belongs to another model or configuration.
        """
        state = self._slab.unpack(snapshot)
        with self._lock:
            return self._slab.take(state)

    def snapshot(self, slot: int) -> bytes:
        """The whole state of a stream."""
        return self.pack(self.copy(slot))

    def copy(self, slot: int) -> Tensors:
        """The whole state of a stream as it is now."""
        with self._lock:
            return self._slab.read([slot])

    def pack(self, state: Tensors) -> bytes:
        """A copied state as a snapshot."""
        return self._slab.pack(state)

    def put_back(self, slot: int, snapshot: bytes) -> None:
        """Give a slot a snapshot's state, byte for byte. Raises SnapshotError as ``restore``."""
        state = self._slab.unpack(snapshot)
        with self._lock:
            self._slab.write([slot], state, [0])

    def restore_inputs(self, slot: int, snapshot: bytes) -> None:
        """Set what is known of a stream's inputs, as ``watch`` told it. Raises SnapshotError."""
        state = unpack_inputs(self._slab.initial, snapshot)
        with self._lock:
            self._slab.write([slot], state, [0])

    def release(self, slot: int) -> None:
        """Forget a stream and reuse its slot."""
        with self._lock:
            self._slab.give_back(slot)

    def encode_inputs(self, rows: Sequence[Sequence[Value] | Mapping[str, Value]]) -> FloatArray:
        """Check input rows: (B, D). Raises InputError with the row, the feature and the reason."""
        return encode_rows(self._spec.features, rows)

    def encode_targets(
        self, targets: Sequence[Any], slot: int | None = None, rows: Sequence[int] | None = None
    ) -> FloatArray:
        """Check labels: (B, O) values or (B, 1) class indices.

        Args:
            targets: One label a row.
            slot: The stream, whose own labels count where classes are open; none for a stream that has named none.
            rows: Rows that are asked for; all by default. The others are checked.

        Raises:
            InputError: With the row and the reason.
        """
        names: Names = ()
        if slot is not None and self._spec.target.ways:
            with self._lock:
                (names,) = names_of(self._slab.read([slot], {"vocabulary"})["vocabulary"])
        return encode_targets(self._spec, targets, names, rows)

    def predict(self, items: Sequence[tuple[int, FloatArray]], interval: float | None = None) -> list[Prediction]:
        """Answers for rows of several streams; ``interval`` is the coverage of intervals, in (0, 1)."""
        return self.answer(self.look([slot for slot, _ in items]), [inputs for _, inputs in items], interval)

    def look(self, slots: Sequence[int]) -> Tensors:
        """What ``answer`` needs of streams as they are now."""
        with self._lock:
            return self._slab.read(slots, self._answering)

    @torch.inference_mode()
    def answer(self, look: Tensors, inputs: Sequence[FloatArray], interval: float | None = None) -> list[Prediction]:
        """Answers for rows (B, D) of each stream that was looked at, in that order."""
        answers: dict[int, Prediction] = {}
        groups = by_size([len(rows) for rows in inputs])
        for group in groups:
            state = look if len(groups) == 1 else {key: value[group] for key, value in look.items()}
            z, _ = self._inputs(state, [inputs[index] for index in group], [None] * len(group))
            said = adaptation.predict(self._plan, self._meta, state, z, self._fresh)
            asked = torch.cat([z[..., len(self._spec.features) :], combination.pack(self._spec, said)], dim=-1)
            counts = [len(inputs[index]) for index in group]
            reach, names = state.get("combination.reach"), self._names(state)
            found = answers_of(self._spec, said.served, asked, counts, interval, reach, names)
            reverted = state[reverting.KEY][:, 3] > 0
            if bool(reverted.any()):
                initial, _, _ = adaptation.predict_initial(self._plan, self._meta, z, self._fresh)
                own = answers_of(self._spec, initial, asked, counts, interval, None, names)
                found = instead(found, own, reverted.tolist())
            answers |= dict(zip(group, found, strict=True))
        return [answers[index] for index in range(len(inputs))]

    @torch.inference_mode()
    def predict_initial(self, inputs: FloatArray, interval: float | None = None) -> Prediction:
        """The frozen start's answers, with no stream and so without known labels."""
        z, _ = self._inputs(self._slab.initial, [inputs], [None])
        served, _, _ = adaptation.predict_initial(self._plan, self._meta, z, self._fresh)
        lags, names = z[..., len(self._spec.features) :], self._names(self._slab.initial)
        return answers_of(self._spec, served, lags, [len(inputs)], interval, None, names)[0]

    @torch.inference_mode()
    def step(self, items: Sequence[Feedback], interval: float | None = None) -> Tick:
        """Learn a batch of each of several streams, at most one a stream; nothing is served before ``apply``.

        ``interval`` is the coverage of the outcomes' intervals, in (0, 1).
        """
        states: dict[int, NewState] = {}
        outcomes: dict[int, Outcome] = {}
        groups = by_size([len(item.inputs) for item in items], [item.decision is None for item in items])
        for group in (part for whole in groups for part in self._tiles(whole)):
            chosen = [items[index] for index in group]
            with self._lock:
                state = self._slab.read([item.slot for item in chosen])
            new, found = self._move(chosen, state, interval)
            outcomes |= dict(zip(group, found, strict=True))
            states |= {index: NewState(new, row) for row, index in enumerate(group)}
        order = range(len(items))
        return Tick([item.slot for item in items], [states[i] for i in order], [outcomes[i] for i in order])

    def _tiles(self, group: list[int]) -> list[list[int]]:
        """A group in parts whose states take up no more than ``TILE_BYTES``, one stream at least."""
        streams = max(TILE_BYTES // self._slab.stream_bytes, 1)
        return [group[start : start + streams] for start in range(0, len(group), streams)]

    def _move(self, items: Sequence[Feedback], state: Tensors, interval: float | None) -> tuple[Tensors, list[Outcome]]:
        """One step of items of like length; the new states with their rolling figures, and what was observed."""
        spec, counts = self._spec, [len(item.inputs) for item in items]
        given = [item.asked for item in items]
        z, mask = self._inputs(state, [item.inputs for item in items], given)
        targets = padded([item.targets for item in items], mask.shape[1])
        scaled = to_scale(spec.target, targets) if spec.task == "regression" else targets
        rows = Rows(z, self._tensor(scaled), mask)
        decisions = _decisions([item.decision for item in items])
        said = self._said(given, mask.shape[1])
        new, seen = adaptation.step(self._plan, self._meta, state, rows, decisions, self._fresh, said)
        names = self._names(state)
        if names is not None:
            after = [extended(own, item.targets, item.labels) for own, item in zip(names, items, strict=True)]
            slots = torch.stack([written(own, spec.target.ways) for own in after]).to(self._device)
            new["vocabulary"] = torch.where(seen.kept[:, None, None], slots, state["vocabulary"])
        scores = scores_of(spec, seen, targets, mask.numpy(force=True), names)
        edge = state[reverting.KEY].numpy(force=True)
        told = [item.decision.reverted for item in items if item.decision is not None]
        logged = np.array(told) if len(told) == len(items) else None  # a group is of one kind
        worse, learned = scores.loss - scores.initial_loss, np.array(counts, dtype=np.float64)
        turned, turns = reverting.follow(edge, worse, learned, seen.decisions.drift, logged)
        new[reverting.KEY] = self._tensor(turned)
        if edge[:, 3].any():
            scores = served_scores(scores, reverting.reverted(edge))
        changed, moved = watch_inputs(spec, state, z, fresh_rows(mask.numpy(force=True), [i.watched for i in items]))
        new |= changed
        shown = np.stack([scores.loss, scores.score, np.ones(len(items))], axis=1)
        kept = (1 - adaptation.SCORE_RATE) ** np.array(counts)[:, None]
        new["rolling"] = self._tensor(kept * state["rolling"].numpy(force=True) + (1 - kept) * shown)
        outcomes = outcomes_of(spec, seen, state, new, z, counts, scores, interval, names)
        outcomes = [outcome._replace(moved=found) for outcome, found in zip(outcomes, moved, strict=True)]
        for place in np.flatnonzero(reverting.reverted(turned)).tolist():
            decision = outcomes[place].decision._replace(reverted=True)
            outcomes[place] = outcomes[place]._replace(decision=decision)
        for place, turn in turns.items():
            outcomes[place] = outcomes[place]._replace(turned=turn)
        return new, outcomes

    @torch.inference_mode()
    def watch(self, items: Sequence[tuple[int, FloatArray]]) -> tuple[Tick, list[Watched]]:
        """Look at rows that are predicted and have no labels yet, at most one item a stream.

        Nothing is learned from them but where the inputs lie; it is served after ``apply``.
        """
        slots, blocks = [slot for slot, _ in items], [inputs for _, inputs in items]
        with self._lock:
            state = self._slab.read(slots, {*KEYS, *GLANCE})
        mask = mask_of(blocks)
        z = self._standardised(blocks, mask.shape[1])
        new, moved = watch_inputs(self._spec, state, self._tensor(z), mask)
        names = [status.state for status in statuses(state | new)]
        states = [NewState(new, row) for row in range(len(slots))]
        return Tick(slots, states, []), list(map(Watched, moved, names, pack_inputs(new)))

    @torch.inference_mode()
    def reset_tick(self, slots: Sequence[int]) -> Tick:
        """Streams back at the meta-initialization; their counters and known labels stay."""
        with self._lock:
            state = self._slab.read(slots)
        new = adaptation.reset(self._plan, self._meta, state)
        return Tick(list(slots), [NewState(new, row) for row in range(len(slots))], [])

    def apply(self, tick: Tick) -> None:
        """Serve the states of a tick: called after their commit."""
        batches: dict[int, tuple[Tensors, list[int], list[int]]] = {}
        for slot, (batch, row) in zip(tick.slots, tick.states, strict=True):
            _, rows, slots = batches.setdefault(id(batch), (batch, [], []))
            rows.append(row)
            slots.append(slot)
        with self._lock:
            for batch, rows, slots in batches.values():
                self._slab.write(slots, batch, rows)

    def status(self, slot: int) -> Status:
        """A stream at a glance."""
        with self._lock:
            state = self._slab.read([slot], GLANCE)
        return self.status_of(state)

    def status_of(self, state: Tensors) -> Status:
        """A copied state at a glance."""
        return statuses(state)[0]

    def _inputs(
        self, state: Tensors, inputs: Sequence[FloatArray], asked: Sequence[FloatArray | None]
    ) -> tuple[Tensor, Tensor]:
        """Padded (S, B, D + L) rows with their lag columns, and the mask (S, B)."""
        now = lags_now(self._spec, state).to(torch.float64).numpy(force=True)
        mask = mask_of(inputs)
        longest = mask.shape[1]
        width = len(self._spec.features)
        z = np.zeros((len(inputs), longest, width + now.shape[1]))
        z[:, :, :width] = self._standardised(inputs, longest)
        z[:, :, width:] = now[:, None]
        for position, given in enumerate(asked):
            if given is not None:
                z[position, : len(given), width:] = given[:, : now.shape[1]]
        return self._tensor(z), torch.from_numpy(mask).to(self._device)

    def _standardised(self, blocks: Sequence[FloatArray], longest: int) -> FloatArray:
        """Bundle-standardised rows of several streams (S, B, D), padded; in one call, as blocks are often one row."""
        raw = padded(blocks, longest)
        return standardise(self._scales, raw.reshape(-1, raw.shape[-1])).reshape(raw.shape)

    def _said(self, asked: Sequence[FloatArray | None], longest: int) -> Tensor | None:
        """What members had said of late rows (S, B, K), NaN for the others; None where all are others."""
        lags, width = lag_columns(self._spec), combination.width_said(self._spec, self._plan.members)
        told = [given is not None and given.shape[1] == lags + width for given in asked]
        if not any(told):
            return None
        said = np.full((len(asked), longest, width), np.nan)
        for position, given in enumerate(asked):
            if given is not None and told[position]:
                said[position, : len(given)] = given[:, lags:]
        return self._tensor(said)

    def _names(self, state: Tensors) -> list[Names] | None:
        """The labels of each stream, where classes are open."""
        return names_of(state["vocabulary"]) if self._spec.target.ways else None

    def _tensor(self, values: FloatArray) -> Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(self._device)


def _names_in(state: Tensors) -> Tensors:
    """What of a state says which labels there are."""
    return {key: state[key] for key in ("named", "vocabulary") if key in state}


def _decisions(given: Sequence[Decision | None]) -> Decisions | None:
    """Logged decisions as columns; None where the detector is to decide. A group is of one kind."""
    logged = [decision for decision in given if decision is not None]
    if len(logged) != len(given) or not logged:
        return None
    return Decisions(
        np.array([decision.kind == "drift" for decision in logged]),
        np.array([decision.kind == "warning" for decision in logged]),
        np.array([decision.rows_since_change for decision in logged], dtype=np.int64),
        np.array([decision.statistic for decision in logged]),
        np.array([decision.threshold for decision in logged]),
    )
