"""The report of an overload: what was learned, what was refused, and what makes it doubtful."""

import pytest

from loadtest.histogram import Histogram
from loadtest.open_loop import Offered
from loadtest.refusing import report_of


def offered(*, refused: int = 120, retry_after: int = 120, late: float = 0.001) -> Offered:
    """Two seconds of 300 requests a second, of which 180 were learned."""
    found = Offered(300.0, 2.0, probes=Histogram.of([0.004]), late=Histogram.of([late]), retry_after=retry_after)
    found.statuses.update({200: 180, 429: refused})
    return found


def test_goodput_and_refusals_are_shares() -> None:
    """Of the peak, and of all answers."""
    report = report_of(100.0, offered())
    assert (report.rate_asked, report.rate_achieved, report.scheduled) == (300.0, 90.0, 600)
    assert report.figures == {
        "peak_per_second": 100.0,
        "goodput_share": 0.9,
        "refused_share": 0.4,
        "retry_after_share": 1.0,
        "health_p99_ms": pytest.approx(4.0, rel=1e-3),
    }
    assert (report.limited, report.limits) == (False, ())


def test_what_makes_it_doubtful_is_said() -> None:
    """A late generator, a queue that was never full, refusals that do not say when to come back."""
    late = report_of(100.0, offered(late=0.02))
    assert late.limited
    assert "sent 20.0 ms late" in late.limits[0]
    assert "nothing was refused" in report_of(100.0, offered(refused=0, retry_after=0)).limits[0]
    assert report_of(100.0, offered(retry_after=100)).limits == ("20 of 120 refusals did not say when to come back",)
