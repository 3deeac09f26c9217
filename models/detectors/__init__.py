"""Drift detectors: what a stream's own predictive likelihood says about change."""

from collections.abc import Mapping
from types import MappingProxyType

from models.detectors.adwin import Adwin
from models.detectors.base import Detector, DetectorState, Signals, Verdict, WeighsHypotheses
from models.detectors.ddm import Ddm
from models.detectors.eddm import Eddm
from models.detectors.hddm_a import HddmA
from models.detectors.hddm_w import HddmW
from models.detectors.kswin import Kswin
from models.detectors.llr_cusum import LlrCusum
from models.detectors.never import Never
from models.detectors.page_hinkley import PageHinkley
from models.detectors.run_length import RunLength

DETECTORS: Mapping[str, type[Detector]] = MappingProxyType(
    {
        "adwin": Adwin,
        "ddm": Ddm,
        "eddm": Eddm,
        "hddm_a": HddmA,
        "hddm_w": HddmW,
        "kswin": Kswin,
        "llr_cusum": LlrCusum,
        "never": Never,
        "page_hinkley": PageHinkley,
        "run_length": RunLength,
    },
)

__all__ = [
    "DETECTORS",
    "Adwin",
    "Ddm",
    "Detector",
    "DetectorState",
    "Eddm",
    "HddmA",
    "HddmW",
    "Kswin",
    "LlrCusum",
    "Never",
    "PageHinkley",
    "RunLength",
    "Signals",
    "Verdict",
    "WeighsHypotheses",
]
