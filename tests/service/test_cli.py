"""The command line: what it prints and writes, its exit codes, and errors of one line."""

import re
from io import StringIO
from pathlib import Path

import orjson
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from models import RIVER_MODELS, Scores, read_bundle, write_bundle
from models.types import Lags
from service.cli import app
from service.commands.console import out, score_grid
from tests.models.examples import small_model, write_rows

PNG = b"\x89PNG\r\n\x1a\n"


def _run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200", "TERM": "dumb"})


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle that uses lagged targets."""
    file = tmp_path / "model.safetensors"
    file.write_bytes(write_bundle(small_model(lags=Lags((1, 2), (0.1,)))))
    return file


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A data file that fits the bundle."""
    return write_rows(tmp_path / "rows.csv", 60)


def assert_one_line(result: Result, *said: str) -> None:
    """Exit code 1, and one line on stderr that says what and what to do."""
    assert result.exit_code == 1
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("acclimate: ")
    assert all(part in lines[0] for part in said), lines[0]


@pytest.mark.parametrize(
    "command", ["train", "evaluate", "serve", "replay", "inspect", "export", "backup", "restore", "fsck", "doctor"]
)
def test_help_lists_every_command_and_its_options(command: str) -> None:
    """Exit code 0, and each option has a line of help."""
    assert command in _run("--help").stdout
    result = _run(command, "--help")
    assert result.exit_code == 0
    for option in re.findall(r"--[a-z-]+ .*", result.stdout.partition("Examples:")[0]):
        assert len(option.split()) > 2


def test_contract_options_are_there() -> None:
    """Names of options are fixed: outside programs use them."""
    for command, options in {
        "train": "data target stream-column time-column task features lag-target delay rows streams algorithm budget "
        "seed device out tasks resume continue search force",
        "export": "model streams since data-dir out",
        "evaluate": "data batch delay score-rows score-streams compare json plot",
        "serve": "host port data-dir model activate workers",
        "replay": "data url model batch delay score-rows score-streams rate",
    }.items():
        text = _run(command, "--help").stdout
        assert not [option for option in options.split() if f"--{option} " not in text]


def test_a_narrow_terminal_wraps_names_and_cuts_no_figure() -> None:
    """80 characters, and figures as long as they get."""
    long = Scores("River linear, shared", 30, 0.3512, 0.5123, 0.7412, 0.3615, 12, 16479.0, None, 0.933, 2.081)
    text = StringIO()
    Console(width=80, file=text).print(score_grid("regression", [long], "title", "caption"))
    printed = text.getvalue()
    assert all(
        figure in printed for figure in ("0.3512", "0.5123", "0.7412", "93.3%", "2.081", "0.3615", "12", "16,479")
    )
    assert "…" not in printed


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate"],
        ["evaluate", "m.safetensors", "--data", "d.csv", "--batch", "0"],
        ["evaluate", "m.safetensors", "--data", "d.csv", "--score-rows", "half"],
        ["evaluate", "m.safetensors", "--data", "d.csv", "--score-rows", "0.3:", "--score-streams", "f"],
        ["train", "--data", "d.csv"],
        ["train", "--data", "d.csv", "--target", "y", "--tasks", "sinusoid"],
        ["train", "--data", "d.csv", "--target", "y", "--lag-target", "many"],
        ["train", "--data", "d.csv", "--target", "y", "--task", "ranking"],
        ["train", "--data", "d.csv", "--target", "y", "--ways", "5"],
        ["train", "--data", "d.csv", "--target", "y", "--classes", "open", "--task", "regression"],
        ["train", "--tasks", "sinusoid", "--classes", "open"],
        ["train", "--tasks", "sinusoid", "--start", "network"],
        ["train", "--data", "d.csv", "--target", "y", "--algorithm", "maml", "--start", "trees"],
        ["train", "--data", "d.csv", "--target", "y", "--classes", "open", "--start", "network"],
        ["train", "--continue", "m.safetensors", "--data", "d.csv", "--classes", "open"],
        ["serve", "--model", "no-file"],
        ["serve", "--port", "99999"],
        ["unknown"],
    ],
)
def test_wrong_usage_exits_with_2(words: list[str]) -> None:
    """Before anything is read or written."""
    result = _run(*words)
    assert result.exit_code == 2
    assert "Usage" in result.stderr


def test_evaluate_prints_the_contenders_and_writes_figures_and_plot(
    tmp_path: Path, bundle: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table, JSON with the same figures, a PNG; a part may be scored."""
    monkeypatch.setattr(out, "width", 120)
    figures, picture = tmp_path / "out.json", tmp_path / "out.png"
    result = _run(
        *("evaluate", bundle, "--data", rows, "--batch", 2, "--compare", "--score-rows", "0.5:"),
        *("--json", figures, "--plot", picture),
    )
    assert result.exit_code == 0, result.output
    written = orjson.loads(figures.read_bytes())
    results = {each["name"]: each for each in written["results"]}
    assert next(iter(results)) == "frozen start"
    assert list(results)[-1] == "adapted"
    river = {f"River {name}{way}" for name in RIVER_MODELS["regression"] for way in ("", ", shared")}
    assert {"last value", "online SGD", "window of 500 rows"} | river < set(results)
    printed = [re.split(r"  +", line.strip())[0] for line in result.stdout.splitlines()]
    order = [name for name in printed if name in results]
    assert order == sorted(results, key=lambda name: results[name]["score"])
    assert results["adapted"]["coverage"] is not None
    assert f"{results['adapted']['coverage']:.1%}" in result.stdout
    assert "shared: one model learns all streams" in result.stdout
    for each in written["results"]:
        assert each["rows"] == written["scored_rows"] == 30
        assert f"{each['score']:#.4g}" in result.stdout
    assert (written["batch"], written["delay"], written["metric"]) == (2, 0, "mean absolute error")
    assert picture.read_bytes().startswith(PNG)
    assert all(set(each) >= {"ece", "coverage", "width", "cpu_us_per_row"} for each in written["results"])


def test_evaluate_takes_several_files_and_streams_to_score(tmp_path: Path, bundle: Path) -> None:
    """`--data A B` as a shell's glob gives it, and a file of stream names."""
    files = [write_rows(tmp_path / f"{seed}.csv", 30, seed=seed) for seed in (1, 2)]
    names = tmp_path / "names.json"
    names.write_text('["shop-0"]')
    figures = tmp_path / "out.json"
    result = _run("evaluate", bundle, "--data", *files, "--score-streams", names, "--json", figures)
    assert result.exit_code == 0, result.output
    written = orjson.loads(figures.read_bytes())
    assert written["rows"] == 60
    assert set(written["streams"]["adapted"]) == {"shop-0"}


def test_classification_is_scored_by_accuracy(tmp_path: Path) -> None:
    """And has no RMSE."""
    file = tmp_path / "cls.safetensors"
    file.write_bytes(write_bundle(small_model("classification")))
    result = _run("evaluate", file, "--data", write_rows(tmp_path / "rows.csv", 40, task="classification"))
    assert result.exit_code == 0, result.output
    assert "accuracy" in result.stdout
    assert "RMSE" not in result.stdout
    assert "cal. err." in result.stdout


def test_failures_are_one_line(tmp_path: Path, bundle: Path, rows: Path) -> None:
    """What is wrong, and what to do; never a traceback."""
    foreign = tmp_path / "foreign.safetensors"
    foreign.write_bytes(b"no bundle")
    assert_one_line(_run("evaluate", foreign, "--data", rows), "foreign.safetensors", "not an acclimate model bundle")
    assert_one_line(_run("evaluate", tmp_path / "absent", "--data", rows), "absent", "cannot be read")
    assert_one_line(_run("evaluate", bundle, "--data", tmp_path / "no.csv"), "no.csv", "no such file")
    assert_one_line(
        _run("evaluate", bundle, "--data", rows, "--stream-column", "x"), "no column 'x'", "t, shop, a, b, y"
    )
    assert_one_line(_run("evaluate", bundle, "--data", rows, "--plot", "/no/such/dir/p.png"), "no such folder")
    assert_one_line(_run("train", "--data", rows, "--target", "price"), "no column 'price'")
    assert_one_line(_run("train", "--data", rows, "--target", "y", "--algorithm", "magic"), "unknown algorithm 'magic'")
    assert_one_line(_run("train", "--tasks", "cubes"), "unknown task family 'cubes'")
    assert_one_line(_run("inspect", foreign), "not an acclimate model bundle")
    assert_one_line(_run("serve", "--data-dir", tmp_path, "--model", f"m={foreign}"), "model m", "foreign.safetensors")
    assert _run("serve", "--workers", 0).exit_code == 2
    assert_one_line(
        _run("replay", "--data", rows, "--url", "http://127.0.0.1:1", "--model", "m"), "cannot be reached", "--url"
    )


def test_inspect_shows_the_header(bundle: Path) -> None:
    """Task, target, features, lagged targets, experts, detector, provenance and tensors."""
    result = _run("inspect", bundle)
    assert result.exit_code == 0
    for part in ("regression", "bayes_head", "llr_cusum", "labels back [1, 2]", "stream_column", "shop", "numeric"):
        assert part in result.stdout
    for name in read_bundle(bundle).meta:
        assert name in result.stdout


def test_train_writes_a_bundle_that_evaluate_takes(tmp_path: Path) -> None:
    """From a data file to a model to its score; what was inferred, chosen and held out is printed."""
    rows = write_rows(tmp_path / "rows.csv", 200, 2)
    out = tmp_path / "trained.safetensors"
    result = _run(
        *("train", "--data", rows, "--target", "y", "--stream-column", "shop", "--time-column", "t"),
        *("--rows", "0:0.8", "--lag-target", 0, "--budget", 0.02, "--out", out),
    )
    assert result.exit_code == 0, result.output
    for part in (
        "regression ('y' holds numbers)",
        "rows 0:0.8",
        "frozen start",
        "online SGD",
        "adapted after 1 batches",
    ):
        assert part in result.stdout
    spec = read_bundle(out).spec
    assert [feature.name for feature in spec.features] == ["a", "b"]
    assert not list(tmp_path.glob("*.partial"))
    assert _run("evaluate", out, "--data", rows, "--score-rows", "0.8:").exit_code == 0


def test_train_resumes_only_what_is_there(tmp_path: Path) -> None:
    """Without a checkpoint, or with one of other options, --resume is refused; a finished training leaves none."""
    out = tmp_path / "m.safetensors"
    words = ("train", "--data", write_rows(tmp_path / "rows.csv", 100), "--target", "y", "--lag-target", 0)
    assert_one_line(_run(*words, "--out", out, "--resume"), "m.safetensors.checkpoint", "without --resume")
    (tmp_path / "m.safetensors.checkpoint").write_bytes(b"of an earlier run")
    assert_one_line(_run(*words, "--out", out, "--resume"), "checkpoint is damaged", "without --resume")
    result = _run(*words, "--out", out, "--budget", 0.01)
    assert result.exit_code == 0, result.output
    assert "will be overwritten" in result.stdout
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith("m.")] == ["m.safetensors"]


def test_train_search_tells_what_it_tried(tmp_path: Path) -> None:
    """On the terminal, and in what inspect shows; on a task family it is wrong usage."""
    out = tmp_path / "m.safetensors"
    rows = write_rows(tmp_path / "rows.csv", 100)
    result = _run("train", "--data", rows, "--target", "y", "--search", "--budget", 0.05, "--out", out)
    assert result.exit_code == 0, result.output
    assert "network, round 1" in result.stdout
    tried = read_bundle(out).spec.provenance["search"]
    assert {tuple(each["hidden"]) for each in tried} >= {(16,), (64, 32), (128, 128, 64)}
    assert "network: hidden widths" in _run("inspect", out).stdout
    assert _run("train", "--tasks", "sinusoid", "--search").exit_code == 2
