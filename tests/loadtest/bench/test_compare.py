"""What moved beyond noise: a rule with known chances of error."""

import math

import numpy as np
import pytest
from scipy import stats

from loadtest.bench.compare import ERROR, compare, holm, student_p, summary, welch_p
from loadtest.bench.figures import FIGURES

TURNS = 5


def run(seed: int, *, spread: float = 0.05, **factors: float) -> dict[str, list[float]]:
    """Every figure in some turns, around 2, and some of them around so many times as much."""
    rng = np.random.default_rng(seed)
    return {
        figure.key: (2.0 * factors.get(figure.scenario, 1.0) * np.exp(spread * rng.normal(size=TURNS))).tolist()
        for figure in FIGURES
    }


@pytest.mark.parametrize("freedom", [1.0, 1.7, 4.0, 7.3, 30.0, 200.0])
@pytest.mark.parametrize("t", [0.0, 0.3, 2.0, -4.5, 12.0])
def test_student_s_tail_is_scipy_s(t: float, freedom: float) -> None:
    """Far out, too."""
    assert student_p(t, freedom) == pytest.approx(2 * stats.t.sf(abs(t), freedom), rel=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_p_is_that_of_welch_s_test(seed: int) -> None:
    """SciPy's, on the logarithms, with spreads and numbers of turns that differ."""
    rng = np.random.default_rng(seed)
    first, second = rng.lognormal(0.0, 0.1, 5), rng.lognormal(0.2, 0.4, 7)
    expected = stats.ttest_ind(np.log(first), np.log(second), equal_var=False).pvalue
    assert welch_p(first.tolist(), second.tolist()) == pytest.approx(expected, rel=1e-4)


def test_turns_that_do_not_differ_at_all_are_told_apart_by_their_value() -> None:
    """Where there is no noise any difference is beyond it."""
    assert welch_p([2.0, 2.0, 2.0], [2.0, 2.0, 2.0]) == 1.0
    assert welch_p([2.0, 2.0, 2.0], [3.0, 3.0, 3.0]) == 0.0


def test_holm_rejects_from_the_smallest_on() -> None:
    """0.01 ≤ 0.05/3, 0.02 ≤ 0.05/2, 0.06 > 0.05/1; once one stands, all later ones do."""
    assert holm({"a": 0.06, "b": 0.01, "c": 0.02}, 0.05) == {"b", "c"}
    assert holm({"a": 0.03, "b": 0.03, "c": 0.01}, 0.05) == {"c"}
    assert holm({}, 0.05) == set()


def test_equal_programs_are_seldom_told_apart() -> None:
    """Of 200 pairs of runs no more are, in any of their figures, than is promised, but for chance."""
    found = sum(
        any(change.verdict != "same" for change in compare(run(2 * seed, spread=0.2), run(2 * seed + 1, spread=0.2)))
        for seed in range(200)
    )
    assert found <= stats.binom.ppf(0.99, 200, ERROR)


def test_what_got_worse_is_found_and_named() -> None:
    """Latencies that rise and rates that fall are worse, the other way round better."""
    changes = {change.key: change for change in compare(run(1), run(2, feedback=1.5, overload=0.5, zipf=0.5))}
    verdicts = {key: change.verdict for key, change in changes.items() if change.verdict != "same"}
    assert verdicts == {
        "feedback p50": "worse",
        "feedback p99": "worse",
        "feedback CPU a request": "worse",
        "zipf p50": "better",
        "zipf p99": "better",
        "zipf CPU a request": "better",
        "overload peak": "worse",
        "overload learned of the peak": "worse",
        "overload health p99": "better",
    }
    assert changes["feedback p50"].share == pytest.approx(0.5, abs=0.15)
    assert summary(list(changes.values())).startswith(f"9 of {len(FIGURES)} figures moved beyond noise: feedback p50 +")


def test_noise_hides_what_it_is_larger_than() -> None:
    """The same rise is told of where turns agree and not where they scatter."""
    assert any(change.verdict == "worse" for change in compare(run(1), run(2, predict=1.3)))
    noisy = compare(run(1, spread=0.4), run(2, spread=0.4, predict=1.3))
    assert [change.verdict for change in noisy] == ["same"] * len(FIGURES)


def test_a_small_change_is_not_told_of_however_certain() -> None:
    """Nine percent, without any noise."""
    assert {change.verdict for change in compare(run(1, spread=0.0), run(2, spread=0.0, predict=1.09))} == {"same"}


def test_figures_of_few_turns_are_not_compared() -> None:
    """Nor those that the last run did not have; they are counted."""
    before, now = run(1), run(2)
    del before["predict p50"]
    now["predict p99"] = [1.0, 1.1, math.nan]
    verdicts = {change.key: change.verdict for change in compare(before, now)}
    assert {key for key, verdict in verdicts.items() if verdict == "not compared"} == {"predict p50", "predict p99"}
    assert summary(compare(before, now)).endswith("; 2 not compared, with fewer than 3 turns that count")
