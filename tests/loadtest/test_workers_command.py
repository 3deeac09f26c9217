"""Workers beside one: ratios are taken turn by turn."""

from loadtest.workers import _results, line


def test_a_ratio_is_of_rows_per_cpu_second() -> None:
    """The median over turns with its range; one worker has no target."""
    found = _results("feedback", 32, [1, 2], [[100.0, 90.0], [200.0, 160.0], [100.0, 85.0]])
    assert [line(each) for each in found] == [
        "| feedback, 32 rows | 1 | 100 | 1.00 (1.00 to 1.00) | - |",
        "| feedback, 32 rows | 2 | 90 | 0.85 (0.80 to 0.90) | 0.85 |",
    ]
