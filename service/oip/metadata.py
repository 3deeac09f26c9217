"""What the protocol says about models: their tensors, and their statistics."""

from collections.abc import Sequence
from typing import Any

from service.oip.outputs import NUMBER, label_datatype, output_names
from service.oip.rows import INPUTS
from service.oip.tensors import BYTES
from service.statistics import Counts
from service.types import ModelInfo

PLATFORM = "acclimate"


def metadata_of(info: ModelInfo) -> dict[str, Any]:
    """A model's tensors, as a client needs them to make a request; -1 is any size.

    Where all features are numbers they stand in one tensor, otherwise each in its own.

    Example:
        >>> from service.types import FeatureInfo
        >>> shop = ModelInfo("m", [1], 1, "regression", [FeatureInfo("a", "numeric"), FeatureInfo("b", "categorical")],
        ...                  None, [], {}, {}, "y", False)
        >>> metadata_of(shop)["inputs"][1]
        {'name': 'b', 'datatype': 'BYTES', 'shape': [-1]}
    """
    if all(feature.kind == "numeric" for feature in info.features):
        inputs = [_tensor(INPUTS, NUMBER, [-1, len(info.features)])]
    else:
        inputs = [_tensor(one.name, NUMBER if one.kind == "numeric" else BYTES, [-1]) for one in info.features]
    several = [] if info.outputs == 1 else [info.outputs]
    labels, beside = output_names(info)
    width = several if info.classes is None else [-1 if info.ways else len(info.classes)]
    outputs = [_tensor(labels, label_datatype(info), [-1, *several]), _tensor(beside, NUMBER, [-1, *width])]
    versions = [str(version) for version in info.versions]
    return {"name": info.name, "versions": versions, "platform": PLATFORM, "inputs": inputs, "outputs": outputs}


def _tensor(name: str, datatype: str, shape: list[int]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape}


def statistics_of(versions: Sequence[tuple[str, int]], counts: Sequence[Counts]) -> dict[str, Any]:
    """Statistics of model versions, as Triton's extension has them; those that were never asked have zeros."""
    found = {(one.model, one.version): one for one in counts}
    return {"model_stats": [_stated(found.get(key) or Counts(*key)) for key in versions]}


def _stated(counts: Counts) -> dict[str, Any]:
    def spent(count: int, duration_ns: int) -> dict[str, int]:
        return {"count": count, "ns": duration_ns}

    return {
        "name": counts.model,
        "version": str(counts.version),
        "last_inference": int(counts.last_at * 1e3),
        "inference_count": counts.rows,
        "execution_count": counts.executions,
        "inference_stats": {
            "success": spent(counts.answered, counts.answered_ns),
            "fail": spent(counts.failed, counts.failed_ns),
            "queue": spent(counts.answered, counts.queue_ns),
            "compute_input": spent(counts.answered, counts.input_ns),
            "compute_infer": spent(counts.answered, counts.infer_ns),
            "compute_output": spent(counts.answered, counts.output_ns),
            "cache_hit": spent(0, 0),
            "cache_miss": spent(0, 0),
        },
        "batch_stats": [],  # an execution takes whatever rows of whatever streams wait: no sizes to sum over
    }
