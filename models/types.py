"""Values that the learning core passes around: nothing here computes.

Axes, everywhere: S streams, M members of a committee, B rows of a batch, D raw inputs (features, then lag columns),
F network inputs, O regression outputs, C classes, W retained rows of a window.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor

FloatArray: TypeAlias = npt.NDArray[np.float64]
Tensors: TypeAlias = dict[str, Tensor]
"""A flat dict of tensors. A stream state's tensors all lead with the stream axis S."""
TaskKind: TypeAlias = Literal["regression", "classification"]
Label: TypeAlias = str | int | bool | float
Value: TypeAlias = float | int | str | bool | None


@dataclass(frozen=True, slots=True)
class Feature:
    """One input column as the client sends it.

    Attributes:
        name: Its name in rows that are objects.
        kind: ``numeric`` or ``categorical``.
        mean: Mean over the training rows (numeric).
        std: Standard deviation over the training rows, > 0 (numeric).
        power: Yeo-Johnson exponent that makes the standardised training rows most like a normal distribution; 1 is the
            identity (numeric).
        power_mean: Mean of the training rows after that (numeric).
        power_std: Their standard deviation then, > 0 (numeric).
        categories: Vocabulary; a value outside it counts as unknown, not as an error (categorical).
        missing: Whether null is accepted: the training rows had some.
    """

    name: str
    kind: Literal["numeric", "categorical"] = "numeric"
    mean: float = 0.0
    std: float = 1.0
    power: float = 1.0
    power_mean: float = 0.0
    power_std: float = 1.0
    categories: tuple[str, ...] = ()
    missing: bool = False


@dataclass(frozen=True, slots=True)
class Lags:
    """Inputs made from the stream's own last known labels, which the engine keeps.

    Attributes:
        offsets: 1 is the last label known, 2 the one before it, and so on.
        rates: Rates of exponentially weighted means of the known labels, per row.
    """

    offsets: tuple[int, ...] = ()
    rates: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """What is predicted.

    Attributes:
        name: The column's name.
        mean: Mean of each output in the transformed scale, length O (regression).
        std: Standard deviation of each output in the transformed scale, > 0 (regression).
        power: Yeo-Johnson exponent applied before standardising; 1 is the identity (regression).
        classes: Class labels in the order of the probabilities (classification).
        ways: Where each stream names its classes itself, as their labels come: how many at most. ``classes`` is empty
            then. 0 where the classes are fixed.
        low: Least label seen in training, per output, before any transform (regression).
        high: Greatest label seen in training (regression).
    """

    name: str = "target"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    power: float = 1.0
    classes: tuple[Label, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    ways: int = 0


@dataclass(frozen=True, slots=True)
class Expert:
    """One entry of the committee: a learner of the table LEARNERS and its hyper-parameters.

    Attributes:
        name: Its name in the bundle.
        learner: Name of the learner.
        hyper_parameters: The learner's.
        on_start: Whether the frozen start's answer is among its inputs.
    """

    name: str
    learner: str
    hyper_parameters: Mapping[str, Any] = field(default_factory=dict)
    on_start: bool = False


@dataclass(frozen=True, slots=True)
class DetectorChoice:
    """An entry of the table DETECTORS and its settings."""

    name: str = "llr_cusum"
    settings: Mapping[str, Any] = field(default_factory=dict)


StartKind: TypeAlias = Literal["", "boosted_trees", "tabular_network"]
"""Frozen starts; the empty name is none."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Everything about a model that is not a tensor; written as JSON into the bundle.

    Attributes:
        name: Short name of the model.
        task: ``regression`` or ``classification``.
        features: Inputs in the order of a row.
        target: What is predicted.
        lags: Inputs made from the stream's last known labels.
        experts: One or more learners.
        weights: What each live member's weight starts from, in the order of the experts; empty: even.
        share: Fixed share of the weight that moves to the other members, per row.
        challenger_share: h₀, weight of the challenger in what is served.
        cold_share: Share of the frozen start's answer in what a stream gets after its first row; falls as 2/(1 + rows).
        detector: Drift detector and its settings.
        window_rows: Rows that a stream retains for re-adaptation.
        min_rows: Rows that a re-adaptation uses when the detector gives no change estimate.
        standardiser_rows: Time constant of the online standardiser, in rows; 0 keeps the bundle's statistics.
        start: Frozen model whose answer is an input of experts; empty for none.
        delay_rows: Rows of the stream that come before a label is known, as stated in training.
        stacked: Whether a stream learns to correct the committee's mixture (``combination``).
        provenance: Data name, rows, seed, meta-validation scores, library version.
    """

    name: str
    task: TaskKind
    features: tuple[Feature, ...]
    target: Target
    experts: tuple[Expert, ...]
    lags: Lags = Lags()
    weights: tuple[float, ...] = ()
    share: float = 0.01
    challenger_share: float = 0.01
    cold_share: float = 0.0
    detector: DetectorChoice = DetectorChoice()
    window_rows: int = 32
    min_rows: int = 8
    standardiser_rows: int = 2000
    start: StartKind = ""
    delay_rows: float = 0.0
    stacked: bool = False
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def outputs(self) -> int:
        """Width of the network's last layer: O outputs, or C classes."""
        if self.task == "classification":
            return self.target.ways or len(self.target.classes)
        return len(self.target.mean)


class Batch(NamedTuple):
    """Labelled rows of S streams, padded to the longest.

    Attributes:
        x: (S, B, F) network inputs.
        y: (S, B, O) standardised targets for regression; (S, B) int64 class indices for classification.
        mask: (S, B) bool, false where a row is padding.
    """

    x: Tensor
    y: Tensor
    mask: Tensor


class Episode(NamedTuple):
    """T tasks to meta-train on: adapt on ``support``, be judged on ``query``. Leading axis T takes the place of S."""

    support: Batch
    query: Batch


class Predictive(NamedTuple):
    """Predictive distributions of M members, the last of which is the learner's challenger.

    Attributes:
        mean: Regression: (S, M, B, O) means. Classification: (S, M, B, C) log probabilities.
        var: Regression: (S, M, B, O) variances, noise included. Classification: empty tensor.
        df: (S, M) degrees of freedom where a learner foresees Student's t with this mean and variance; ``None``:
            normal, and for mixtures of members, which are told by mean and variance alone.
    """

    mean: Tensor
    var: Tensor
    df: Tensor | None = None


class Evidence(NamedTuple):
    """Log-likelihood of a batch under each member, in nats, from the state before the batch.

    Attributes:
        joint: (S, M) joint log-likelihood of the batch's rows; the last member is the challenger.
        robust: (S, M) the same with heavy tails for regression, what the detector's test looks at; for classification
            equal to ``joint``.
        predictive: What each member had predicted for the rows.
    """

    joint: Tensor
    robust: Tensor
    predictive: Predictive
