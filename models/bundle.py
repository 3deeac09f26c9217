"""The model file: one safetensors file whose header says everything; nothing is ever unpickled."""

import hashlib
import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from models.errors import BundleError
from models.types import DetectorChoice, Expert, Feature, Lags, ModelSpec, Target, Tensors

FORMAT_VERSION = 1
KEY = "acclimate"
HEADER_BYTES_MAX = 16 * 2**20
"""Longest safetensors header that is read."""
_KNOWN = {field.name for field in fields(ModelSpec)}


class Model(NamedTuple):
    """A meta-trained initialization: what is fixed (spec) and what was learned (meta)."""

    spec: ModelSpec
    meta: Tensors


def write_bundle(model: Model) -> bytes:
    """The bundle's bytes; the same model gives the same bytes."""
    meta = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(model.meta.items())}
    header = {
        "format_version": FORMAT_VERSION,
        **asdict(model.spec),
        "checksums": {name: tensor_digest(tensor) for name, tensor in meta.items()},
    }
    header["header_checksum"] = _header_digest(header, meta)
    return save_tensors(meta, metadata={KEY: json.dumps(header, sort_keys=True)})


def read_bundle(source: bytes | Path, name: str = "the file") -> Model:
    """Read a bundle.

    Args:
        source: The bytes, or the path of a file.
        name: What to call it in an error; a path calls itself.

    Raises:
        BundleError: It cannot be read, is no bundle of ours, is damaged, or is newer than this library.
    """
    if isinstance(source, Path):
        name = str(source)
        try:
            data = source.read_bytes()
        except OSError as error:
            raise BundleError(
                f"{name}: cannot be read ({error.strerror}); give the path of a .safetensors bundle"
            ) from error
    else:
        data = source
    header = _header(data, name)
    try:
        meta = load_tensors(data)
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise BundleError(f"{name}: damaged safetensors file ({error}); fetch or train it again") from error
    checksum, stated = header.pop("header_checksum", None), {"format_version": FORMAT_VERSION, **header}
    checksums = header.pop("checksums", None)
    if not isinstance(checksums, dict) or set(checksums) != set(meta):
        raise BundleError(f"{name}: the tensors do not match the header; the file is damaged")
    if checksum is not None and checksum != _header_digest(stated, meta):  # bundles of before it was there have none
        raise BundleError(f"{name}: the header fails its checksum; the file is damaged")
    for tensor_name, tensor in meta.items():
        if tensor_digest(tensor) != checksums[tensor_name]:
            raise BundleError(f"{name}: tensor {tensor_name} fails its checksum; the file is damaged")
    try:
        return Model(_spec(header), meta)
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{name}: the header is not what a bundle of ours says ({error})") from error


def _header(data: bytes, name: str) -> dict[str, Any]:
    foreign = f"{name}: not an acclimate model bundle (.safetensors made by `acclimate train`)"
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(len(data) - 8, HEADER_BYTES_MAX):  # noqa: PLR2004 - safetensors' length prefix
        raise BundleError(foreign)
    try:
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
        header = json.loads(metadata[KEY])
        version = int(header.pop("format_version"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BundleError(foreign) from error
    if version != FORMAT_VERSION:
        raise BundleError(f"{name}: format {version}, this library reads format {FORMAT_VERSION}; upgrade acclimate")
    return dict(header)


def _header_digest(header: dict[str, Any], meta: Tensors) -> str:
    """Checksum of all that the file says but for the tensors' bytes, in hexadecimal."""
    shapes = {name: [str(tensor.dtype), list(tensor.shape)] for name, tensor in meta.items()}
    return hashlib.blake2b(json.dumps([header, shapes], sort_keys=True).encode(), digest_size=16).hexdigest()


def _spec(header: dict[str, Any]) -> ModelSpec:
    if unknown := header.keys() - _KNOWN:
        raise ValueError(f"it says {min(unknown)[:64]!r}, which none does")
    target = header["target"]
    return ModelSpec(
        name=str(header["name"]),
        task=header["task"],
        features=tuple(
            Feature(**{**feature, "categories": tuple(feature["categories"])}) for feature in header["features"]
        ),
        target=Target(
            name=str(target["name"]),
            mean=tuple(target["mean"]),
            std=tuple(target["std"]),
            power=float(target["power"]),
            classes=tuple(target["classes"]),
            low=tuple(target["low"]),
            high=tuple(target["high"]),
            ways=int(target.get("ways", 0)),
        ),
        experts=tuple(Expert(**expert) for expert in header["experts"]),
        lags=Lags(*(tuple(header["lags"][key]) for key in ("offsets", "rates"))),
        share=float(header["share"]),
        challenger_share=float(header["challenger_share"]),
        detector=DetectorChoice(**header["detector"]),
        window_rows=int(header["window_rows"]),
        min_rows=int(header["min_rows"]),
        standardiser_rows=int(header["standardiser_rows"]),
        start=header.get("start", ""),
        delay_rows=float(header.get("delay_rows", 0.0)),
        stacked=bool(header.get("stacked", False)),
        weights=tuple(header.get("weights", ())),
        provenance=dict(header["provenance"]),
    )


def model_fingerprint(model: Model) -> str:
    """What tells a model from another version of it: a digest of all that its answers depend on, in hexadecimal."""
    spec = {name: value for name, value in asdict(model.spec).items() if name != "provenance"}
    tensors = {name: tensor_digest(tensor.detach().cpu()) for name, tensor in model.meta.items()}
    return hashlib.blake2b(json.dumps([spec, tensors], sort_keys=True).encode(), digest_size=16).hexdigest()


def tensor_digest(tensor: torch.Tensor) -> str:
    """Checksum of a tensor's bytes, in hexadecimal."""
    return hashlib.blake2b(tensor.contiguous().numpy().tobytes(), digest_size=16).hexdigest()
