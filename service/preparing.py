"""What of a request is to be learned: encoded rows, without duplicates, late labels joined with their rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models import Engine, FloatArray
from service.errors import FieldError, InvalidError
from service.hot import Hot
from service.idempotency import Asked
from service.payload import Labels, Rows
from service.pending import Held, asked_of, same_input
from service.store import Pending, UploadPart
from service.types import Row

PLACES_MAX = 100
"""Most ids that a refusal names."""


class Unlabelled(NamedTuple):
    """Rows that were predicted, to be kept until their labels come.

    Attributes:
        inputs: As the client sent them.
        pending: As they are kept, one a row.
        before: Rows kept before this time (epoch seconds) are dropped.
        rows_max: Then the oldest are dropped until so many are left.
    """

    inputs: Sequence[Row]
    pending: Sequence[Pending]
    before: float
    rows_max: int


@dataclass(frozen=True, eq=False, slots=True)
class Work:
    """Rows or late labels to learn by a hot stream, or rows to keep for it; ``given`` ``None`` is a reset.

    ``part`` says where rows stand in a resumable upload, ``asked`` that the answer is kept for a repeat.
    """

    hot: Hot
    given: Rows | Labels | Unlabelled | None
    part: UploadPart | None = None
    asked: Asked | None = None

    @property
    def rows(self) -> int:
        """Rows of the request."""
        if isinstance(self.given, Unlabelled):
            return len(self.given.pending)
        return 0 if self.given is None else len(self.given.targets)

    @property
    def ids(self) -> list[str]:
        """Ids of labelled rows."""
        given = None if isinstance(self.given, Unlabelled) else self.given
        return [name for name in (given.ids if given else None) or () if name is not None]


class Prepared(NamedTuple):
    """Encoded rows of one request.

    Attributes:
        work: The request.
        rows: Those that are learned.
        kept: Their indices in the request.
        unknown: Ids of late labels that wait for none; ``None`` where that is not asked.
        inputs: (rows, D), encoded.
        targets: (rows, O), encoded.
        asked: (rows, L + K) what was told with the rows' predictions; ``None`` where they are predicted now.
        held: The rows as they were predicted, for late labels.
        watched: (rows,) whether a row's inputs were watched when it was predicted; ``None``: none were.
    """

    work: Work
    rows: Rows
    kept: list[int]
    unknown: list[str] | None
    inputs: FloatArray
    targets: FloatArray
    asked: FloatArray | None
    held: list[Held] | None
    watched: npt.NDArray[np.bool_] | None


def prepare(work: Work, given: Rows | Labels, learned: set[str], pending: Mapping[str, Held]) -> Prepared:
    """Check and encode all rows, then leave out those whose id was learned before, or stands twice in the batch.

    Args:
        work: The request.
        given: Its rows or labels.
        learned: Those of its ids that were learned before.
        pending: Those of its ids that wait for a label.

    Raises:
        InputError, InvalidError: A row that the model cannot take, or an id that waits for no label and has to.
    """
    if isinstance(given, Labels):
        return _late(work, given, learned, pending)
    engine = work.hot.lease.engine
    inputs = engine.encode_inputs(given.inputs)
    kept = _new(given.ids or [None] * len(given.targets), learned)
    targets = engine.encode_targets(given.targets, work.hot.slot, kept)
    rows = given.take(kept)
    version = work.hot.record.model_version
    found = {place: row for place, row in _kept_before(rows, pending).items() if row.model_version == version}
    asked = _asked(engine, work.hot.slot, inputs[kept], found) if any(row.asked for row in found.values()) else None
    watched = np.isin(np.arange(len(kept)), list(found)) if found else None
    return Prepared(work, rows, kept, None, inputs[kept], targets, asked, None, watched)


def _late(work: Work, given: Labels, learned: set[str], pending: Mapping[str, Held]) -> Prepared:
    """Labels with the rows that were predicted under their ids."""
    engine = work.hot.lease.engine
    missing = [(index, name) for index, name in enumerate(given.ids) if name not in pending and name not in learned]
    if given.strict and missing:
        reason = "waits for no label (never predicted with this id, or too long ago): send its inputs"
        places = tuple(FieldError(("ids", index), f"id {name} {reason}") for index, name in missing[:PLACES_MAX])
        raise InvalidError(f"{len(missing)} of the ids wait for no label, the first is {missing[0][1]}.", places)
    absent = {index for index, _ in missing}
    kept = [index for index in _new(given.ids, learned) if index not in absent]
    targets = engine.encode_targets(given.targets, work.hot.slot, kept)
    held = [pending[str(given.ids[index])] for index in kept]
    labels = Rows([row.input for row in held], [given.targets[index] for index in kept])
    times = given.times
    rows = labels._replace(
        ids=[given.ids[index] for index in kept],
        times=None if times is None else [times[index] for index in kept],
    )
    unknown = None if given.strict else [str(name) for _, name in missing]
    inputs, version = engine.encode_inputs(rows.inputs), work.hot.record.model_version
    known = {place: row for place, row in enumerate(held) if row.model_version == version}
    asked = asked_of(held) if len(known) == len(held) else _asked(engine, work.hot.slot, inputs, known)
    watched = np.isin(np.arange(len(kept)), list(known))
    return Prepared(work, rows, kept, unknown, inputs, targets, asked, held, watched)


def _new(ids: Sequence[str | None], learned: set[str]) -> list[int]:
    """Indices of the rows without an id and of those whose id comes for the first time."""
    seen = set(learned)
    new = []
    for index, name in enumerate(ids):
        if name is None or name not in seen:
            new.append(index)
        if name is not None:
            seen.add(name)
    return new


def _kept_before(rows: Rows, pending: Mapping[str, Held]) -> dict[int, Held]:
    """Those rows, by their place, that were predicted and kept before and are sent again with their labels."""
    found: dict[int, Held] = {}
    for index, name in enumerate(rows.ids or ()):
        held = None if name is None else pending.get(name)
        if held is not None and same_input(held, rows.inputs[index]):
            found[index] = held
    return found


def _asked(engine: Engine, slot: int, inputs: FloatArray, found: Mapping[int, Held]) -> FloatArray:
    """What the rows' labels bring along: of those kept before, what was told then."""
    asked = engine.predict([(slot, inputs)])[0].asked  # as of now
    if found:
        asked[list(found)] = asked_of(list(found.values()))
    return asked
