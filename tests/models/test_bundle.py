"""Bundles: written and read alike, and refused with one clear error where anything is wrong."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from models import BundleError, Model, read_bundle, write_bundle
from models.types import Lags
from tests.models.examples import older_bundle, small_model


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_a_bundle_reads_back_as_it_was_written(task: str) -> None:
    """Spec and tensors are equal; the same model gives the same bytes."""
    model = small_model(task, Lags((1, 24), (0.1,)))
    data = write_bundle(model)
    back = read_bundle(data)
    assert json.dumps(back.spec.provenance) == json.dumps(model.spec.provenance)
    assert replace(back.spec, experts=()) == replace(model.spec, experts=())
    assert [dict(expert.hyper_parameters) for expert in back.spec.experts] == [
        dict(expert.hyper_parameters) for expert in model.spec.experts
    ]
    assert back.meta.keys() == model.meta.keys()
    assert all(torch.equal(back.meta[name], model.meta[name]) for name in model.meta)
    assert write_bundle(back) == data


def test_every_flipped_byte_is_noticed() -> None:
    """Header or tensor: no damaged bundle is read as if it were sound."""
    data = write_bundle(small_model())
    for place in range(0, len(data), 37):
        with pytest.raises(BundleError):
            read_bundle(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])


def test_what_a_header_says_of_its_tensors_is_checked() -> None:
    """The same bytes under another type or shape are another tensor."""
    data = write_bundle(small_model())
    for said, other in ((b'"F32"', b'"I32"'), (b'\\"share\\": 0.', b'\\"share\\": 1.')):
        assert data.count(said)
        with pytest.raises(BundleError, match="checksum"):
            read_bundle(data.replace(said, other))


def test_a_bundle_without_a_checksum_of_its_header_is_read() -> None:
    """As they were written once."""
    model = small_model()
    data = write_bundle(model)
    assert write_bundle(read_bundle(older_bundle(model))) == data
    with pytest.raises(BundleError, match="which none does"):
        read_bundle(data.replace(b"header_checksum", b"heager_checksum"))


@pytest.mark.parametrize("length", [0, 7, 8, 100, 2000])
def test_a_cut_file_is_refused(length: int) -> None:
    """The error says what the file is not."""
    data = write_bundle(small_model())
    with pytest.raises(BundleError):
        read_bundle(data[:length])


@pytest.mark.parametrize(
    "data", [b"just text, no bundle", b"", b"\x00" * 64, b"PK\x03\x04zip", save({"a": torch.zeros(2)})]
)
def test_a_foreign_file_is_refused(data: bytes) -> None:
    """Text, nothing, zeros, an archive, somebody else's tensors."""
    with pytest.raises(BundleError, match="not an acclimate model bundle"):
        read_bundle(data)


def test_a_newer_format_is_refused_with_the_way_out() -> None:
    """The error says to upgrade."""
    data = write_bundle(small_model())
    newer = data.replace(b'\\"format_version\\": 1', b'\\"format_version\\": 9')
    with pytest.raises(BundleError, match="format 9, this library reads format 1; upgrade"):
        read_bundle(newer)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The path and the cause."""
    with pytest.raises(BundleError, match=r"nowhere.safetensors: cannot be read"):
        read_bundle(tmp_path / "nowhere.safetensors")


def test_a_tensor_too_many_or_too_few_is_refused() -> None:
    """Tensors and checksums have to be the same set."""
    model = small_model()
    extra = Model(model.spec, {**model.meta, "stray": torch.zeros(1)})
    assert "stray" in read_bundle(write_bundle(extra)).meta
    header = json.loads(write_bundle(model)[8 : 8 + int.from_bytes(write_bundle(model)[:8], "little")])
    meta = {**model.meta, "stray": torch.zeros(1)}
    with pytest.raises(BundleError, match="do not match the header"):
        read_bundle(save(meta, metadata=header["__metadata__"]))
