"""Drift detectors: what a stream's own predictive likelihood says about change."""

from collections.abc import Mapping
from types import MappingProxyType

from models.detectors.base import Detector, DetectorState, Signals, Verdict
from models.detectors.llr_cusum import LlrCusum
from models.detectors.never import Never
from models.detectors.page_hinkley import PageHinkley

DETECTORS: Mapping[str, type[Detector]] = MappingProxyType(
    {"llr_cusum": LlrCusum, "never": Never, "page_hinkley": PageHinkley},
)

__all__ = ["DETECTORS", "Detector", "DetectorState", "LlrCusum", "Never", "PageHinkley", "Signals", "Verdict"]
