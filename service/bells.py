"""Who waits for a stream's next event is woken when one is committed."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import SaturatedError


class Bells:
    """A bell for each stream that somebody listens to. Belongs to the event loop.

    Args:
        listeners_max: Most that listen at once.
    """

    def __init__(self, listeners_max: int) -> None:
        self._max = listeners_max
        self._count = 0
        self._listening: dict[str | None, set[asyncio.Event]] = {}

    @contextmanager
    def listening(self, stream: str | None) -> Iterator[asyncio.Event]:
        """An event that is set whenever the stream's bell rings, or (``None``) any; the listener clears it.

        Raises:
            SaturatedError: Too many listen already.
        """
        if self._count >= self._max:
            raise SaturatedError(f"{self._count} clients follow events, no more fit: ask for them page by page.")
        self._count += 1
        bell = asyncio.Event()
        self._listening.setdefault(stream, set()).add(bell)
        try:
            yield bell
        finally:
            self._count -= 1
            own = self._listening[stream]
            own.discard(bell)
            if not own:
                del self._listening[stream]

    def ring(self, stream: str) -> None:
        """Wake those who listen to a stream."""
        for listened in (stream, None):
            for bell in self._listening.get(listened, ()):
                bell.set()

    def ring_all(self) -> None:
        """Wake everybody: the service is stopping."""
        for bells in self._listening.values():
            for bell in bells:
                bell.set()
