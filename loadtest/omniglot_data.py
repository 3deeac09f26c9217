"""Omniglot's two small background sets: handwritten characters, read from their archives, and episodes of them."""

import io
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from models import Batch, Episode

TRAINING, TEST = "images_background_small2.zip", "images_background_small1.zip"
"""The larger set trains."""
SIDE = 28
DRAWINGS = 20
"""Drawings of every character, each by another person."""


def read_alphabets(archive: Path) -> dict[str, Tensor]:
    """Every alphabet's drawings, (characters, 20, 784): ink is 1 and paper 0.

    A drawing of 105×105 pixels is cut to its ink, put in the middle of a square a seventh wider than the longer side,
    and averaged down to 28×28.

    Args:
        archive: One of Omniglot's zip files, ``set/alphabet/character/drawing.png`` inside.

    Raises:
        ValueError: A character has not 20 drawings.
    """
    found: dict[str, dict[str, list[np.ndarray]]] = {}
    with zipfile.ZipFile(archive) as files:
        for name in sorted(files.namelist()):
            if not name.endswith(".png"):
                continue
            *_, alphabet, character, _ = name.split("/")
            found.setdefault(alphabet, {}).setdefault(character, []).append(_drawing(files.read(name)))
    for alphabet, characters in found.items():
        for character, drawings in characters.items():
            if len(drawings) != DRAWINGS:
                raise ValueError(f"{archive.name}: {alphabet} {character} has {len(drawings)} drawings, not {DRAWINGS}")
    return {
        alphabet: torch.from_numpy(np.stack([np.stack(drawings) for drawings in characters.values()]))
        for alphabet, characters in found.items()
    }


def _drawing(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        ink = ImageOps.invert(image.convert("L"))
    cut = ink.crop(ink.getbbox())
    side = math.ceil(max(cut.size) * 8 / 7)
    square = Image.new("L", (side, side))
    square.paste(cut, ((side - cut.width) // 2, (side - cut.height) // 2))
    small = square.resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32).reshape(-1) / 255.0


def unseen(test: Mapping[str, Tensor], training: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The alphabets of the test set that the training set does not hold."""
    return {name: drawings for name, drawings in test.items() if name not in training}


def characters(alphabets: Mapping[str, Tensor], names: Sequence[str] | None = None) -> Tensor:
    """All characters of the alphabets, or of those named: (characters, 20, 784)."""
    return torch.cat([alphabets[name] for name in (sorted(alphabets) if names is None else names)])


def with_rotations(drawings: Tensor, *, mirrored: bool = False) -> Tensor:
    """Four classes of each: as drawn, and turned by 90, 180 and 270 degrees; if asked, four more of its mirror image.

    (characters, 20, 784) to four or eight times as many.
    """
    images = drawings.unflatten(-1, (SIDE, SIDE))
    if mirrored:
        images = torch.cat([images, images.flip(-1)])
    return torch.cat([images.rot90(turns, (-2, -1)).flatten(-2) for turns in range(4)])


def warped(rows: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Each image (…, 784) under an affine map of its own, near the identity: as if drawn by yet another hand.

    The map's four coefficients move by normal noise of standard deviation ``strength``, its shift by the same in units
    of half the side.
    """
    images = rows.reshape(-1, 1, SIDE, SIDE)
    noise = strength * torch.randn(len(images), 2, 3, generator=generator)
    grid = affine_grid(torch.eye(2, 3) + noise, list(images.shape), align_corners=False)
    return grid_sample(images, grid, align_corners=False).reshape(rows.shape)


@dataclass(frozen=True)
class CharacterEpisodes:
    """A source of meta-batches for ``meta_train``: which of a few characters is this?

    Classes are numbered anew in every task, so that nothing but the support says which is which.

    Attributes:
        drawings: (characters, 20, 784).
        tasks: T, tasks a meta-batch.
        ways: Characters of a task.
        shots: Labelled drawings of each; a meta-batch draws one of these numbers.
        query: Drawings of each that are asked about, in random order.
        warp: Strength of a random affine map of every drawing (``warped``); 0 leaves them as they are.
    """

    drawings: Tensor
    tasks: int = 1
    ways: int = 5
    shots: tuple[int, ...] = (1,)
    query: int = 5
    warp: float = 0.0

    def __call__(self, generator: torch.Generator) -> Episode:
        """Draw a meta-batch."""
        choice = int(torch.randint(len(self.shots), (), generator=generator))
        shots, count = self.shots[choice], self.shots[choice] + self.query
        lots = torch.rand(self.tasks, len(self.drawings), generator=generator)
        chosen = lots.argsort(dim=1)[:, : self.ways, None]  # (T, ways, 1)
        which = torch.rand(self.tasks, self.ways, DRAWINGS, generator=generator).argsort(dim=2)[..., :count]
        x = self.drawings[chosen, which]  # (T, ways, count, 784)
        if self.warp > 0.0:
            x = warped(x, self.warp, generator)
        y = torch.arange(self.ways).view(1, -1, 1).expand(self.tasks, -1, count)
        support, query = (
            (x[:, :, part].flatten(1, 2), y[:, :, part].flatten(1)) for part in (slice(shots), slice(shots, None))
        )
        order = torch.rand(query[1].shape, generator=generator).argsort(dim=1)
        asked = (query[0].gather(1, order.unsqueeze(-1).expand_as(query[0])), query[1].gather(1, order))
        return Episode(*(Batch(*rows, torch.ones(rows[1].shape, dtype=torch.bool)) for rows in (support, asked)))
