"""A run of all scenarios: figures are ratios, the report is read back, the picture drawn, and what moved is told."""

from pathlib import Path

import orjson
import pytest
from matplotlib.image import imread

from loadtest.bench import __main__ as command
from loadtest.bench.calibration import Calibration
from loadtest.bench.compare import compare
from loadtest.bench.document import DocumentError, document, read, write
from loadtest.bench.figures import FIGURES, Measured, ratios
from loadtest.bench.picture import draw
from loadtest.histogram import Histogram
from loadtest.options import Options
from loadtest.report import Report
from loadtest.scenarios import SCENARIOS

BARE = Calibration(Histogram.of([0.001] * 99 + [0.002] * 99), per_second=10_000.0, cpu_ms=0.1, limited=False)
FIELDS = {"cpu_ms": 0.3, "rows_per_second": 70_000.0, "cpu_us_row": 20.0}
OVERLOAD = {"peak_per_second": 4_000.0, "goodput_share": 0.9, "health_p99_ms": 4.0}


def turn(scenario: str, *, times: float = 1.0, limited: bool = False, said: tuple[str, ...] = ()) -> Measured:
    """A scenario whose latencies are 3 and 8 ms, or so many times as much."""
    report = Report(
        scenario=scenario,
        rate_asked=100.0,
        rate_achieved=100.0,
        seconds=1.0,
        scheduled=200,
        ok=200,
        outcomes={"200": 200},
        latency=Histogram.of([0.003 * times] * 150 + [0.008 * times] * 50),
        service=Histogram(),
        generator={"lag_p99_ms": 0.1},
        limited=limited,
        limits=said,
        figures=FIELDS | OVERLOAD,
    )
    return Measured(report, BARE)


def turns_of(**times: float) -> dict[str, list[Measured]]:
    """Four turns of every scenario that differ a little."""
    return {
        name: [turn(name, times=times.get(name, 1.0) * wobble) for wobble in (0.98, 1.0, 1.01, 1.03)]
        for name in SCENARIOS
    }


def test_figures_are_in_units_of_the_bare_route() -> None:
    """A latency of its latency, CPU of its CPU, a rate of its rate; a share stays what it is."""
    found = {figure.key: figure.ratio(turn(figure.scenario)) for figure in FIGURES}
    assert found["predict p50"] == pytest.approx(3.0, rel=1e-3)
    assert found["predict p99"] == pytest.approx(4.0, rel=1e-3)
    assert found["feedback CPU a request"] == pytest.approx(3.0)
    assert found["upload rows"] == pytest.approx(7.0)
    assert found["upload CPU a row"] == pytest.approx(0.2)
    assert found["overload peak"] == pytest.approx(0.4)
    assert found["overload learned of the peak"] == 0.9
    assert found["overload health p99"] == pytest.approx(2.0, rel=1e-3)


def test_every_scenario_has_figures() -> None:
    """And no two have the same name."""
    assert {figure.scenario for figure in FIGURES} == set(SCENARIOS)
    assert len({figure.key for figure in FIGURES}) == len(FIGURES)


def test_turns_in_which_the_generator_was_the_limit_do_not_count() -> None:
    """Whether it was in front of the service or of the bare route."""
    slow = turn("predict")._replace(calibration=BARE._replace(limited=True))
    turns = [turn("predict"), turn("predict", limited=True), slow]
    assert len(ratios(FIGURES[0], turns)) == 1
    histograms = document(Options(), {"predict": turns}).histograms
    assert (len(histograms["predict"]), len(histograms["bare"])) == (200, 198)


def test_a_report_is_read_back(tmp_path: Path) -> None:
    """What runs are compared by, and beside it every turn with its percentiles."""
    turns = turns_of()
    made = document(Options(), turns)
    write(tmp_path / "deep" / "bench.json", made, turns)
    found = read(tmp_path / "deep" / "bench.json")
    assert (found.options, found.machine, found.figures) == (made.options, made.machine, made.figures)
    assert {name: each.as_json() for name, each in found.histograms.items()} == {
        name: each.as_json() for name, each in made.histograms.items()
    }
    assert len(found.histograms["predict"]) == 4 * 200
    plain = orjson.loads((tmp_path / "deep" / "bench.json").read_bytes())
    assert plain["turns"]["feedback"][0]["latency"]["p50"] == pytest.approx(2.94, rel=1e-3)
    assert plain["turns"]["feedback"][0]["bare"]["per_second"] == 10_000.0


@pytest.mark.parametrize("text", [None, "nonsense", "[]", '{"format": 99}', '{"format": 1}'])
def test_a_file_that_is_no_report_is_refused(text: str | None, tmp_path: Path) -> None:
    """With its name."""
    path = tmp_path / "other.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DocumentError, match=r"other\.json"):
        read(path)


def test_the_table_has_a_row_a_figure_and_says_what_moved() -> None:
    """As measured, in units of the bare route, and beside the last run."""
    now = turns_of(cold=2.0)
    made, before = document(Options(), now), document(Options(), turns_of())
    changes = compare(before.figures, made.figures)
    rows = command.lines(now, changes)
    assert len(rows) == 2 + len(FIGURES)
    assert "| cold p50 | 6.03 ms | 6.03 (5.88 to 6.18) | 3.02 | +100% | worse |" in rows
    (said,) = command.compared(made, before, changes, Path("last.json"))
    assert said == (
        f"against last.json: 2 of {len(FIGURES)} figures moved beyond noise: "
        "cold p50 +100% (worse), cold p99 +100% (worse)"
    )
    assert command.lines({"cold": now["cold"]}, compare({}, {"cold p50": [2.0]}))[2].endswith("| - | - |  |")


def test_a_doubtful_comparison_says_why() -> None:
    """Other options, another machine; and without an earlier run there is none."""
    made = document(Options(), {})
    other = made._replace(options=made.options | {"rate": 50.0}, machine={"cores": 64})
    said = command.compared(made, other, [], Path("last.json"))
    assert said[:2] == [
        "last.json was measured with other options: --rate 50.0 then",
        "last.json was measured on another machine",
    ]
    assert command.compared(made, None, [], None) == ["no earlier report: nothing to compare with"]


def test_remarks_count_the_turns_that_are_spoiled() -> None:
    """And tell once what was said."""
    spoiled = [turn("predict", limited=True, said=("too late",)), turn("predict"), turn("predict")]
    assert command.remarks({"predict": spoiled, "feedback": [turn("feedback")]}) == [
        "predict: 1 of 3 turns do not count, the generator was the limit in them",
        "predict: too late",
    ]


def test_the_picture_is_light_and_has_a_panel_a_scenario(tmp_path: Path) -> None:
    """Seven and a legend; the last run's curves, where there is one, in a colour of their own."""
    now, before = document(Options(), turns_of()).histograms, document(Options(), turns_of(cold=2.0)).histograms
    draw(now, {}, tmp_path / "alone.png")
    draw(now, before, tmp_path / "both.png")
    alone, both = (imread(tmp_path / name)[..., :3] for name in ("alone.png", "both.png"))
    assert alone.mean() > 0.9
    orange = (both[..., 0] - both[..., 2] > 0.5).sum()
    assert orange > 100
    assert (alone[..., 0] - alone[..., 2] > 0.5).sum() == 0


def test_only_strict_runs_fail_for_what_got_worse() -> None:
    """Exit code 1; for what got better it is 0."""
    usual = document(Options(), turns_of()).figures
    worse = compare(usual, document(Options(), turns_of(cold=2.0)).figures)
    better = compare(usual, document(Options(), turns_of(cold=0.5)).figures)
    assert [command.code(worse, strict=strict) for strict in (False, True)] == [0, 1]
    assert command.code(better, strict=True) == 0


def test_a_run_writes_report_and_picture_and_compares_with_the_last(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One turn of one scenario against a real server, beside the same file of an earlier run."""
    out, picture = tmp_path / "bench.json", tmp_path / "bench.png"
    write(out, document(Options(), turns_of()), {})
    words = ["--turns", "1", "--scenario", "feedback", "--seconds", "0.2", "--warmup", "0.1", "--rate", "40"]
    assert command.main([*words, "--streams", "2", "--strict", "--json", str(out), "--plot", str(picture)]) == 0
    said = capsys.readouterr().out
    assert f"{out} was measured with other options: --rate 200.0 then, --seconds 10.0 then" in said
    assert f"against {out}: 0 of 0 figures moved beyond noise; 3 not compared" in said
    assert set(read(out).histograms) == {"bare", "feedback"}
    (only,) = orjson.loads(out.read_bytes())["turns"]["feedback"]
    assert (only["scheduled"], only["outcomes"]) == (8, {"200": 8})
    assert imread(picture).ndim == 3


def test_what_cannot_be_read_ends_the_run_before_it_begins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With one line."""
    assert command.main(["--against", str(tmp_path / "gone.json")]) == 1
    assert "gone.json cannot be read" in capsys.readouterr().err
