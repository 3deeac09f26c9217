"""Many streams: quantiles are of every call, and each ratio has its target."""

import numpy as np
import pytest

from loadtest.many_streams import TARGETS, Timed, lines, main, name_of


def test_a_quantile_is_of_all_calls() -> None:
    """In milliseconds."""
    timed = Timed(np.arange(1, 101) / 1000.0)
    assert timed.at(0.5) == pytest.approx(50.5)
    assert timed.at(0.99) > 99.0


def test_names_are_scattered_and_the_same_each_time() -> None:
    """So that streams that are asked for one after another do not lie side by side."""
    names = [name_of(number) for number in range(100)]
    assert names == [name_of(number) for number in range(100)]
    assert names != sorted(names)
    assert len(set(names)) == 100


def test_every_ratio_is_set_beside_its_target() -> None:
    """In one table."""
    table = lines({"ratios": dict.fromkeys(TARGETS, 1.0)})
    assert len(table) == 2 + len(TARGETS)
    assert "| cold p99 ÷ hot p99 | 1.00 | 5 |" in table


def test_too_few_streams_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is registered."""
    with pytest.raises(SystemExit):
        main(["--streams", "100", "--hot", "100"])
    assert "--streams is too few" in capsys.readouterr().err
