"""How far a training is, so that it can go on after an interruption: finished stages, and the running one.

Training is a fixed sequence of stages, each a run of ``meta_train``, with what is computed from their results between
them. A resumed training goes the same way again: stages that the journal has are taken from it, the running one goes on
from its checkpoint, and the choices come out as they did.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from models.bundle import Model, tensor_digest
from models.errors import TrainingError
from models.metatrain import Checkpoint, Keep, Trained
from models.tasks.table import Table
from models.types import Tensors

FORMAT_VERSION = 1
KEY = "acclimate-checkpoint"
KEEP_SECONDS = 10.0
"""Time between two checkpoints of a running stage."""


class Journal:
    """Keeps a training's progress wherever ``save`` puts it.

    Args:
        key: ``fingerprint`` of what is trained on what; another training's journal is refused.
        save: Takes the bytes of the whole journal, in place of the last ones.
        content: What ``save`` took in the run that is resumed.
        keep_seconds: Time between two checkpoints of a running stage.
        clock: Seconds that only grow.

    Attributes:
        latest: The model of the latest stage of this run, finished or not.

    Raises:
        TrainingError: ``content`` is damaged, or belongs to another training.
    """

    def __init__(
        self,
        key: str,
        save: Callable[[bytes], None],
        content: bytes | None = None,
        *,
        keep_seconds: float = KEEP_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.latest: Model | None = None
        self._key, self._save, self._clock, self._keep_seconds = key, save, clock, keep_seconds
        self._stages: list[Trained] = []
        self._running: Checkpoint | None = None
        self._position = 0
        self._kept_at = clock()
        if content is not None:
            self._stages, self._running = _decode(content, key)

    @property
    def stages(self) -> int:
        """Finished stages."""
        return len(self._stages)

    @property
    def iterations(self) -> int:
        """Iterations of all stages, the running one included."""
        return sum(stage.iterations for stage in self._stages) + (self._running.iteration if self._running else 0)

    def next(self) -> tuple[Trained | None, Checkpoint | None]:
        """The next stage: its result if it is finished, or where it stood when it was interrupted."""
        self._position += 1
        if self._position <= len(self._stages):
            return self._stages[self._position - 1], None
        return None, self._running

    def keep(self, checkpoint: Checkpoint, *, last: bool = False) -> None:
        """Note where the running stage is; saved now and then, and at the last."""
        self._running = checkpoint
        if last or self._clock() - self._kept_at >= self._keep_seconds:
            self._put()

    def finish(self, trained: Trained) -> None:
        """Note that the running stage is done."""
        self._stages.append(trained)
        self._running = None
        self._put()

    def _put(self) -> None:
        self._save(_encode(self._key, self._stages, self._running))
        self._kept_at = self._clock()


def kept(journal: Journal | None, train: Callable[[Checkpoint | None, Keep | None], Trained]) -> Trained:
    """Run a stage: from the journal where it is finished, or going on from where it was interrupted.

    Args:
        journal: Where progress is kept; None keeps nothing.
        train: Runs the stage from a checkpoint, telling of further ones.
    """
    if journal is None:
        return train(None, None)
    finished, checkpoint = journal.next()
    if finished is not None:
        return finished
    trained = train(checkpoint, journal.keep)
    if not trained.interrupted:
        journal.finish(trained)
    return trained


def fingerprint(stated: Mapping[str, Any], table: Table | None = None) -> str:
    """Digest of what training depends on: what was stated, the rows, and the versions of torch and scikit-learn."""
    digest = hashlib.blake2b(digest_size=16)
    versions = {"torch": torch.__version__, "scikit-learn": _version("scikit-learn")}
    digest.update(json.dumps({**stated, **versions}, sort_keys=True, default=str).encode())
    if table is not None:
        head = (table.task, table.target_name, table.classes, table.stream_names, table.features, table.part)
        digest.update(json.dumps(head, default=str).encode())
        for column in (*table.columns.values(), table.target, table.streams):
            digest.update(column.tobytes() if isinstance(column, np.ndarray) else json.dumps(column).encode())
    return digest.hexdigest()


def _version(package: str) -> str | None:
    """Without scikit-learn a committee has one expert less, so that a training has other stages."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


_TENSORS = ("theta", "first", "second", "best", "generator")


def _encode(key: str, stages: list[Trained], running: Checkpoint | None) -> bytes:
    tensors: Tensors = {}
    listed = []
    for number, stage in enumerate(stages):
        tensors |= {f"stage_{number}.{name}": tensor.contiguous() for name, tensor in stage.meta.items()}
        listed.append({**stage._asdict(), "meta": list(stage.meta)})
    numbers = None
    if running is not None:  # clones: the file's tensors may not share memory
        tensors |= {f"running.{name}": getattr(running, name).clone() for name in _TENSORS}
        numbers = {name: value for name, value in running._asdict().items() if name not in _TENSORS}
    header = {
        "format_version": FORMAT_VERSION,
        "key": key,
        "stages": listed,
        "running": numbers,
        "checksums": {name: tensor_digest(tensor) for name, tensor in tensors.items()},
    }
    return save_tensors(tensors, metadata={KEY: json.dumps(header)})


def _decode(content: bytes, key: str) -> tuple[list[Trained], Checkpoint | None]:
    damaged = "the checkpoint is damaged; delete it and train without --resume"
    try:
        length = int.from_bytes(content[:8], "little")
        header = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][KEY])
        tensors = load_tensors(content)
        if header["format_version"] != FORMAT_VERSION:
            raise TrainingError(
                f"the checkpoint has format {header['format_version']}, this library reads {FORMAT_VERSION}; "
                "train without --resume"
            )
        if {name: tensor_digest(tensor) for name, tensor in tensors.items()} != header["checksums"]:
            raise TrainingError(damaged)
        if header["key"] != key:
            raise TrainingError(
                "the checkpoint belongs to other rows or other options; state those of the interrupted run, or train "
                "without --resume"
            )
        stages = [
            Trained(**{**stage, "meta": {name: tensors[f"stage_{number}.{name}"] for name in stage["meta"]}})
            for number, stage in enumerate(header["stages"])
        ]
        running = header["running"]
        if running is None:
            return stages, None
        held: dict[str, Any] = {name: tensors[f"running.{name}"] for name in _TENSORS}
        return stages, Checkpoint(**held, **running)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise TrainingError(damaged) from error
