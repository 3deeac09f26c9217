"""What is sent when, and to which stream, fixed before the first request goes out."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class ScheduleError(ValueError):
    """A plan that holds no request."""


class Schedule(NamedTuple):
    """An open-loop plan: it does not wait for answers, so a slow server cannot thin it out.

    Attributes:
        at_s: (requests,) seconds after the start, ascending, constant spacing.
        streams: (requests,) number of the stream that each request is for.
        feedback: (requests,) whether it is feedback; otherwise it is a prediction.
        warmup: Requests at the head that are sent but not reported.
    """

    at_s: npt.NDArray[np.float64]
    streams: npt.NDArray[np.int64]
    feedback: npt.NDArray[np.bool_]
    warmup: int


def popularity(streams: int, zipf: float) -> npt.NDArray[np.float64]:
    """Probability that a request is for stream k: proportional to (k+1)^-zipf.

    Args:
        streams: Number of streams, >= 1.
        zipf: Exponent, >= 0; 0 is uniform, 1 is the usual picture of busy and quiet clients.

    Returns:
        (streams,) probabilities, descending.

    Example:
        >>> popularity(4, 0.0).tolist()
        [0.25, 0.25, 0.25, 0.25]
    """
    weights: npt.NDArray[np.float64] = np.arange(1, streams + 1, dtype=np.float64) ** -zipf
    return weights / float(weights.sum())


def plan(
    rate: float,
    seconds: float,
    *,
    warmup_s: float,
    streams: int,
    zipf: float,
    feedback_share: float,
    rng: np.random.Generator,
) -> Schedule:
    """The schedule of one run: warm-up, then ``seconds`` at the same constant rate.

    Args:
        rate: Requests per second, > 0.
        seconds: Length of the measured part, > 0.
        warmup_s: Length of the part before it, >= 0.
        streams: Number of streams, >= 1.
        zipf: Exponent of the popularity of streams, see ``popularity``.
        feedback_share: Share of the requests that are feedback, in [0, 1]; spread evenly, not drawn.
        rng: Draws the streams.

    Raises:
        ScheduleError: The measured part would hold no request.
    """
    measured = round(rate * seconds)
    if measured < 1:
        raise ScheduleError(f"{rate} requests/s for {seconds} s is less than one request: raise the rate or the time")
    warmup = round(rate * warmup_s)
    index = np.arange(warmup + measured)
    return Schedule(
        at_s=index / rate,
        streams=rng.choice(streams, size=index.size, p=popularity(streams, zipf)),
        feedback=np.floor((index + 1) * feedback_share) > np.floor(index * feedback_share),
        warmup=warmup,
    )
