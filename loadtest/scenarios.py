"""The scenarios: what is done to a server, one after the other, each on streams of its own."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from loadtest.generator import on_exact_loop
from loadtest.options import Options
from loadtest.overload import QUEUE_ITEMS
from loadtest.refusing import overload
from loadtest.report import Report
from loadtest.scheduled import asked, asked_cold
from loadtest.target import Place
from loadtest.upload import upload

Scenario = Callable[[Place, Options], Report]
ZIPF_EXPONENT = 1.0
"""Of the scenario zipf, where none is asked for."""
ZIPF_STREAMS_TIMES = 20
"""So many times the streams of other scenarios: few are busy, and many are seldom heard of."""


def own_settings(*, hot_streams: int | None = None) -> dict[str, str]:
    """Variables for a server of one's own: one thread of numerics, and a queue that ``overload`` can fill.

    Args:
        hot_streams: Streams kept in memory, if not as many as by default; ``cold`` has to make more than these.
    """
    found = {"OMP_NUM_THREADS": "1", "ACCLIMATE_QUEUE_ITEMS_MAX": str(QUEUE_ITEMS)}
    return found | ({} if hot_streams is None else {"ACCLIMATE_HOT_STREAMS_MAX": str(hot_streams)})


def _predict(place: Place, options: Options) -> Report:
    """Predictions."""
    return _asked("predict", place, options, feedback_share=0.0)


def _feedback(place: Place, options: Options) -> Report:
    """Labelled rows."""
    return _asked("feedback", place, options, feedback_share=1.0)


def _mixed(place: Place, options: Options) -> Report:
    """Both in turn."""
    return _asked("mixed", place, options, feedback_share=options.feedback_share)


def _zipf(place: Place, options: Options) -> Report:
    """Both, to many streams of which few are busy."""
    streams, zipf = ZIPF_STREAMS_TIMES * options.streams, options.zipf or ZIPF_EXPONENT
    share = options.feedback_share
    return on_exact_loop(asked("zipf", place, options, feedback_share=share, streams=streams, zipf=zipf))


def _cold(place: Place, options: Options) -> Report:
    """Predictions by streams that are in the store and not in memory."""
    return on_exact_loop(asked_cold("cold", place, options))


def _asked(name: str, place: Place, options: Options, *, feedback_share: float) -> Report:
    return on_exact_loop(
        asked(name, place, options, feedback_share=feedback_share, streams=options.streams, zipf=options.zipf)
    )


SCENARIOS: Mapping[str, Scenario] = MappingProxyType(
    {
        "predict": _predict,
        "feedback": _feedback,
        "mixed": _mixed,
        "zipf": _zipf,
        "cold": _cold,
        "upload": upload,
        "overload": overload,
    }
)
