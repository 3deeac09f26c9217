"""What a stream remembers: rows retained for re-adaptation, and its last known labels."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from models.features import lag_columns, lag_width, network_inputs
from models.start import start_answers
from models.types import Batch, ModelSpec, Tensors


class Rows(NamedTuple):
    """Labelled rows of S streams as they are learned, and as a window retains them.

    Attributes:
        z: (S, B, D + L) bundle-standardised features, then lag columns.
        y: (S, B, O) targets in the learners' scale; (S, B, 1) class indices, as floats.
        mask: (S, B) bool.
    """

    z: Tensor
    y: Tensor
    mask: Tensor


def init_memory(spec: ModelSpec, streams: int, *, window_rows: int) -> Tensors:
    """Nothing remembered yet; room for ``window_rows`` rows."""
    width = lag_width(spec)
    outputs = len(spec.target.mean) if spec.task == "regression" else 1
    return {
        "known": torch.full((streams, max(spec.lags.offsets, default=0), width), torch.nan),
        "known_mean": torch.zeros(streams, len(spec.lags.rates), width),
        "window_z": torch.zeros(streams, window_rows, len(spec.features) + lag_columns(spec)),
        "window_y": torch.zeros(streams, window_rows, outputs),
        "window_rows": torch.zeros(streams, dtype=torch.int64),
    }


def lags_now(spec: ModelSpec, state: Tensors) -> Tensor:
    """Lag columns (S, L) that the next row of each stream gets."""
    if not lag_columns(spec):
        return state["known"].new_zeros(state["known"].shape[0], 0)
    last = state["known"][:, [offset - 1 for offset in spec.lags.offsets]].flatten(1)
    means = torch.where((state["rows_seen"] > 0)[:, None, None], state["known_mean"], torch.nan).flatten(1)
    return torch.cat([last, means], dim=1)


def push_window(spec: ModelSpec, state: Tensors, rows: Rows, count: Tensor) -> tuple[Tensor, Tensor]:
    """Append the batch's rows to the retained window (newest last), stream by stream as its mask says."""
    index = torch.arange(spec.window_rows)[None, :] + count[:, None]  # (S, W) places in [window, batch]

    def pushed(window: Tensor, batch: Tensor) -> Tensor:
        joined = torch.cat([window, batch], dim=1)
        return joined.gather(1, index[..., None].expand(-1, -1, joined.shape[-1]))

    return pushed(state["window_z"], rows.z), pushed(state["window_y"], rows.y)


def window_batch(spec: ModelSpec, meta: Tensors, standard: Tensors, held: Tensors) -> Batch:
    """The retained rows as network inputs under ``standard``'s standardiser; the oldest places may be empty."""
    x = network_inputs(
        spec, standard["x_mean"], standard["x_var"], held["window_z"], start_answers(spec, meta, held["window_z"])
    )
    y = held["window_y"] if spec.task == "regression" else held["window_y"][..., 0].to(torch.int64)
    age = torch.arange(spec.window_rows, 0, -1)[None, :]  # 1 is the newest
    return Batch(x, y, age <= held["window_rows"][:, None])


def remember(spec: ModelSpec, state: Tensors, y: Tensor, mask: Tensor) -> Tensors:
    """Move the known labels, newest first, and their exponentially weighted means by the batch's labels."""
    if not lag_columns(spec):
        return {}
    width = lag_width(spec)
    if spec.task == "regression":
        labels = y
    elif width == 1:
        labels = (2 * y - 1).to(state["known_mean"].dtype)[..., None]
    else:
        labels = one_hot(y, width).to(state["known_mean"].dtype)
    count = mask.sum(1)
    depth = state["known"].shape[1]
    joined = torch.cat([state["known"].flip(1), labels], dim=1)
    index = (torch.arange(depth)[None, :] + count[:, None]).clamp_max(joined.shape[1] - 1)
    known = joined.gather(1, index[..., None].expand(-1, -1, width)).flip(1)
    means = []
    order = state["rows_seen"][:, None] + mask.cumsum(1)  # (S, B) how many labels are known with this one
    for position, rate in enumerate(spec.lags.rates):
        gain = (1 / order.clamp_min(1)).clamp_min(rate) * mask
        keep = 1 - gain
        later = keep.flip(1).cumprod(1).flip(1)
        after = torch.cat([later[:, 1:], torch.ones_like(later[:, :1])], dim=1)
        fresh = ((gain * after)[..., None] * labels).sum(1)
        means.append(later[:, :1] * state["known_mean"][:, position] + fresh)
    mean = torch.stack(means, dim=1) if means else state["known_mean"]
    return {"known": known, "known_mean": mean}
