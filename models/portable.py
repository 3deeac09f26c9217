"""A whole stream as one safetensors file: its state, and beside it in the header whatever its owner states of it."""

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from models.errors import SnapshotError

KEY = "acclimate_stream"
FORMAT_VERSION = 1
HEADER_BYTES_MAX = 2**20
"""Longest safetensors header that is read."""
_LENGTH_BYTES = 8


def write_stream(stated: Mapping[str, Any], snapshot: bytes) -> bytes:
    """The file's bytes; the same stream gives the same bytes.

    Args:
        stated: What is told of the stream, as JSON has it.
        snapshot: Its state, as ``Engine.snapshot`` gives it.
    """
    kept = {
        "format_version": FORMAT_VERSION,
        "stated": dict(stated),
        "snapshot": _metadata(snapshot)["snapshot"],
        "checksum": _digest(snapshot),
    }
    return save_tensors(load_tensors(snapshot), {KEY: json.dumps(kept, sort_keys=True)})


def read_stream(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The inverse of ``write_stream``: what is stated, and the state byte for byte.

    Raises:
        SnapshotError: It is no file of a stream, is damaged, or is newer than this library.
    """
    try:
        kept = json.loads(_metadata(data)[KEY])
        version, stated, checksum = int(kept["format_version"]), dict(kept["stated"]), str(kept["checksum"])
        mark = {"snapshot": str(kept["snapshot"])}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SnapshotError("not the file of a stream: send what GET …/snapshot answered") from error
    if version != FORMAT_VERSION:
        raise SnapshotError(f"format {version}, this service reads format {FORMAT_VERSION}: upgrade it")
    try:
        snapshot = save_tensors(load_tensors(data), mark)
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise SnapshotError(f"damaged safetensors file ({error}): export the stream again") from error
    if _digest(snapshot) != checksum:
        raise SnapshotError("its checksum does not hold: the file is damaged, export the stream again")
    return stated, snapshot


def _metadata(data: bytes) -> dict[str, str]:
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    if length > min(len(data) - _LENGTH_BYTES, HEADER_BYTES_MAX):
        raise ValueError(length)
    metadata: dict[str, str] = json.loads(data[_LENGTH_BYTES : _LENGTH_BYTES + length])["__metadata__"]
    return metadata


def _digest(snapshot: bytes) -> str:
    return blake2b(snapshot, digest_size=16).hexdigest()
