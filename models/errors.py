"""Errors of the learning core.

ModelsError
├── InputError      a row, a target or a configuration that a model cannot take; names the place
├── BundleError     a model file that is damaged, foreign or newer than this library
├── SnapshotError   a stream's snapshot that is damaged or belongs to another model
├── DataError       a data file that cannot be read as asked
└── TrainingError   meta-training cannot start or has failed
"""


class ModelsError(Exception):
    """Base of all errors that ``models`` raises on purpose."""


class InputError(ModelsError):
    """A row, a target or a setting that the model cannot take.

    Attributes:
        loc: Where it is: ``("inputs", row, feature)``, ``("targets", row)`` or ``("config", field)``.
        reason: What is wrong with it and what would be right. Never the value of a whole row.
    """

    def __init__(self, loc: tuple[str | int, ...], reason: str) -> None:
        super().__init__(f"{'.'.join(str(part) for part in loc)}: {reason}")
        self.loc = loc
        self.reason = reason


class BundleError(ModelsError):
    """A model file that is damaged, foreign or newer than this library."""


class SnapshotError(ModelsError):
    """A stream's snapshot that is damaged or belongs to another model."""


class DataError(ModelsError):
    """A data file that cannot be read as asked."""


class TrainingError(ModelsError):
    """Meta-training cannot start or has failed."""
