"""How often each model version was asked since the start, and how long that took, stage by stage."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass


@dataclass(slots=True)
class Counts:
    """What one version of a model has done; durations in nanoseconds, each summed over requests.

    Requests that are worked on together each count the whole duration of what was done for them together.

    Attributes:
        model: Name of the model.
        version: Its version.
        last_at: When it last answered, epoch seconds; 0 before that.
        rows: Rows predicted.
        executions: Batched calls of the numerics.
        answered: Requests answered.
        answered_ns: From a request's arrival in the queue to its answer.
        failed: Requests refused or failed after they had got into the queue.
        failed_ns: The same for these.
        queue_ns: Waiting in the queue.
        input_ns: Checking and encoding rows.
        infer_ns: Computing.
        output_ns: Stating answers.
    """

    model: str
    version: int
    last_at: float = 0.0
    rows: int = 0
    executions: int = 0
    answered: int = 0
    answered_ns: int = 0
    failed: int = 0
    failed_ns: int = 0
    queue_ns: int = 0
    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0


class Statistics:
    """Counts of all model versions that were asked. Belongs to one event loop.

    Args:
        clock: Epoch seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._counts: dict[tuple[str, int], Counts] = {}

    def counts(self) -> list[Counts]:
        """Those that were asked, by model and version."""
        return [self._counts[key] for key in sorted(self._counts)]

    def answered(
        self,
        model: tuple[str, int],
        *,
        rows: int,
        waited_ns: Iterable[int],
        took_ns: Iterable[int],
        stages_ns: tuple[int, int, int],
    ) -> None:
        """Count one execution.

        Args:
            model: Name and version.
            rows: Rows of all its requests.
            waited_ns: How long each request was in the queue.
            took_ns: How long each request took from then to its answer.
            stages_ns: Encoding, computing, and stating answers.
        """
        counts, taken = self._of(model), list(took_ns)
        counts.last_at = self._clock()
        counts.rows += rows
        counts.executions += 1
        counts.answered += len(taken)
        counts.answered_ns += sum(taken)
        counts.queue_ns += sum(waited_ns)
        counts.input_ns += stages_ns[0] * len(taken)
        counts.infer_ns += stages_ns[1] * len(taken)
        counts.output_ns += stages_ns[2] * len(taken)

    def failed(self, model: tuple[str, int], took_ns: int) -> None:
        """Count one request that got no answer."""
        counts = self._of(model)
        counts.failed += 1
        counts.failed_ns += took_ns

    def _of(self, model: tuple[str, int]) -> Counts:
        found = self._counts.get(model)
        if found is None:
            found = self._counts[model] = Counts(*model)
        return found


def summed(counts: Iterable[Counts]) -> list[Counts]:
    """Those of one model version made one, by model and version: each worker counts its own.

    Example:
        >>> both = summed([Counts("m", 1, 5.0, rows=2), Counts("m", 1, 3.0, rows=1)])
        >>> [(one.last_at, one.rows) for one in both]
        [(5.0, 3)]
    """
    found: dict[tuple[str, int], Counts] = {}
    for one in counts:
        key = (one.model, one.version)
        if key not in found:
            found[key] = Counts(*key)
        total = found[key]
        for name, value in asdict(one).items():
            if name == "last_at":
                total.last_at = max(total.last_at, value)
            elif name not in {"model", "version"}:
                setattr(total, name, getattr(total, name) + value)
    return [found[key] for key in sorted(found)]
