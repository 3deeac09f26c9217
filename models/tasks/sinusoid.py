"""Sinusoids: the few-shot regression family of the MAML paper, and streams that switch between its tasks."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from models.types import Batch, Episode


class SinusoidTasks(NamedTuple):
    """y = amplitude·sin(x − phase), (T,) each."""

    amplitude: Tensor
    phase: Tensor

    def truth(self, x: Tensor) -> Tensor:
        """Targets without noise: x (T, …) -> the same shape."""
        shape = (-1, *[1] * (x.dim() - 1))
        return self.amplitude.reshape(shape) * torch.sin(x - self.phase.reshape(shape))


class SwitchingStreams(NamedTuple):
    """S streams of N steps with B rows each.

    Attributes:
        x: (S, N, B, 1) inputs.
        y: (S, N, B, 1) labels, noise included.
        truth: (S, N, B, 1) labels without noise.
        changed: (S, N) true where a new task begins with this step; false at the first.
    """

    x: Tensor
    y: Tensor
    truth: Tensor
    changed: Tensor


@dataclass(frozen=True, slots=True)
class Sinusoid:
    """The family: ranges that are drawn from uniformly.

    Attributes:
        amplitude: Range of the amplitude.
        phase: Range of the phase, in radians.
        inputs: Range of x.
        noise_std: Standard deviation of the noise on labels.
    """

    amplitude: tuple[float, float] = (0.1, 5.0)
    phase: tuple[float, float] = (0.0, math.pi)
    inputs: tuple[float, float] = (-5.0, 5.0)
    noise_std: float = 0.0

    def draw(self, tasks: int, generator: torch.Generator) -> SinusoidTasks:
        """Draw tasks."""
        return SinusoidTasks(
            _uniform((tasks,), self.amplitude, generator),
            _uniform((tasks,), self.phase, generator),
        )

    def rows(self, tasks: SinusoidTasks, rows: int, generator: torch.Generator) -> Batch:
        """Draw labelled rows of each task, none of them padding."""
        x = _uniform((tasks.phase.shape[0], rows, 1), self.inputs, generator)
        y = tasks.truth(x)
        if self.noise_std > 0.0:
            y = y + self.noise_std * torch.randn(y.shape, generator=generator)
        return Batch(x, y, torch.ones(x.shape[:2], dtype=torch.bool))

    def switching(
        self, streams: int, steps: int, *, batch: int, hazard: float, generator: torch.Generator
    ) -> SwitchingStreams:
        """Draw streams whose task is replaced with probability ``hazard`` before each step but the first."""
        changed = torch.rand(streams, steps, generator=generator) < hazard
        changed[:, 0] = False
        segment = changed.cumsum(1) + steps * torch.arange(streams).unsqueeze(1)  # (S, N), one number a segment
        drawn = self.draw(streams * steps, generator)
        tasks = SinusoidTasks(drawn.amplitude[segment.flatten()], drawn.phase[segment.flatten()])
        rows = self.rows(tasks, batch, generator)
        shape = (streams, steps, batch, 1)
        return SwitchingStreams(rows.x.view(shape), rows.y.view(shape), tasks.truth(rows.x).view(shape), changed)


@dataclass(frozen=True, slots=True)
class SinusoidEpisodes:
    """A source of meta-batches for ``meta_train``.

    Attributes:
        family: Where tasks come from.
        tasks: T, tasks a meta-batch.
        support: Least and greatest number of support rows; each task draws its own.
        query: Query rows.
    """

    family: Sinusoid = Sinusoid()
    tasks: int = 25
    support: tuple[int, int] = (10, 10)
    query: int = 10

    def __call__(self, generator: torch.Generator) -> Episode:
        """Draw a meta-batch."""
        least, most = self.support
        tasks = self.family.draw(self.tasks, generator)
        support = self.family.rows(tasks, most, generator)
        if least < most:
            count = torch.randint(least, most + 1, (self.tasks, 1), generator=generator)
            support = support._replace(mask=torch.arange(most) < count)
        return Episode(support, self.family.rows(tasks, self.query, generator))


def _uniform(shape: tuple[int, ...], bounds: tuple[float, float], generator: torch.Generator) -> Tensor:
    low, high = bounds
    return low + (high - low) * torch.rand(shape, generator=generator)
