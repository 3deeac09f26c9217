"""The Omniglot benchmark: its data, its episodes, and its command on characters made up."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from loadtest.omniglot import main
from loadtest.omniglot_data import (
    DRAWINGS,
    TEST,
    TRAINING,
    CharacterEpisodes,
    characters,
    read_alphabets,
    unseen,
    warped,
    with_rotations,
)
from loadtest.omniglot_methods import METHODS, narrowed
from loadtest.omniglot_report import BEST_TARGET, PIXELS, missed, table

DOCS = Path(__file__).parents[2] / "docs"


def png(ink: np.ndarray) -> bytes:
    """A one-bit image whose ink is black, as Omniglot's are."""
    stream = io.BytesIO()
    Image.fromarray(np.where(ink, 0, 255).astype(np.uint8)).convert("1").save(stream, "PNG")
    return stream.getvalue()


def write_set(path: Path, alphabets: dict[str, int], drawings: int = DRAWINGS) -> None:
    """An archive of alphabets with so many characters each: rectangles, no two characters of one shape."""
    with zipfile.ZipFile(path, "w") as files:
        for alphabet, count in alphabets.items():
            for character in range(count):
                for drawing in range(drawings):
                    ink = np.zeros((105, 105), dtype=bool)
                    ink[10 + drawing : 24 + drawing, 20 : 30 + 5 * character] = True
                    name = f"set/{alphabet}/character{character + 1:02d}/{drawing:02d}.png"
                    files.writestr(name, png(ink))


def test_drawings_are_cut_to_their_ink_and_put_in_the_middle(tmp_path: Path) -> None:
    """Ink of 14×35 pixels, wherever it is, fills 24.5 of 28 pixels across, in the middle, and 0.4 as much down."""
    write_set(tmp_path / "set.zip", {"A": 6})
    drawings = read_alphabets(tmp_path / "set.zip")["A"]
    assert drawings.shape == (6, DRAWINGS, 784)
    image = drawings[5, 3].view(28, 28)
    assert torch.equal(drawings[5, 3], drawings[5, 9])
    assert image.sum() == pytest.approx(14 * 35 * (28 / 40) ** 2, rel=0.03)
    assert image.sum(0).nonzero().flatten().tolist() == list(range(1, 26))
    assert image.sum(1).nonzero().flatten().tolist() == list(range(9, 19))
    assert image[14, 14] == 1.0


def test_a_character_that_lacks_drawings_is_refused(tmp_path: Path) -> None:
    """The message names it."""
    write_set(tmp_path / "set.zip", {"A": 1}, drawings=19)
    with pytest.raises(ValueError, match="A character01 has 19 drawings"):
        read_alphabets(tmp_path / "set.zip")


def test_alphabets_of_both_sets_are_not_tested() -> None:
    """What was trained on is no test."""
    one, other = torch.zeros(2, 3, 4), torch.ones(1, 3, 4)
    assert unseen({"Greek": one, "Tagalog": other}, {"Greek": one}).keys() == {"Tagalog"}
    assert characters({"B": one, "A": other}).shape == (3, 3, 4)
    assert torch.equal(characters({"B": one, "A": other})[0], other[0])


def test_rotations_and_mirror_images_are_classes_of_their_own() -> None:
    """Four turns of each character, by NumPy's; eight classes with those of its mirror image."""
    drawings = torch.rand(3, 2, 784, generator=torch.Generator().manual_seed(0))
    turned = with_rotations(drawings)
    assert turned.shape == (12, 2, 784)
    for turns in range(4):
        expected = np.rot90(drawings[1, 1].view(28, 28).numpy(), turns)
        assert np.array_equal(turned[3 * turns + 1, 1].view(28, 28).numpy(), expected)
    both = with_rotations(drawings, mirrored=True)
    assert len({tuple(image) for image in both[:, 0].tolist()}) == 24


def test_a_warp_of_no_strength_changes_nothing() -> None:
    """And one of some strength changes every image in its own way, keeping most of its ink."""
    rows = torch.zeros(4, 28, 28)
    rows[:, 8:20, 8:20] = 1.0
    rows = rows.flatten(1)
    assert torch.allclose(warped(rows, 0.0, torch.Generator()), rows, atol=1e-5)
    found = warped(rows, 0.1, torch.Generator().manual_seed(0))
    assert not torch.allclose(found[0], found[1], atol=0.1)
    assert (found.sum(1) / rows.sum(1) - 1.0).abs().max() < 0.6


def test_a_task_asks_about_other_drawings_of_its_few_characters() -> None:
    """Labels mean the same character in support and query, no drawing is in both, and numbers are dealt anew."""
    code = torch.arange(7 * DRAWINGS, dtype=torch.float32).view(7, DRAWINGS, 1)
    source = CharacterEpisodes(code.expand(-1, -1, 784), tasks=6, ways=3, shots=(2,), query=4)
    support, query = source(torch.Generator().manual_seed(0))
    assert support.x.shape == (6, 6, 784)
    assert query.x.shape == (6, 12, 784)
    which = set()
    for task in range(6):
        by_label: dict[int, list[int]] = {}
        for part in (support, query):
            for x, y in zip(part.x[task, :, 0].int().tolist(), part.y[task].tolist(), strict=True):
                by_label.setdefault(y, []).append(x)
        assert sorted(by_label) == [0, 1, 2]
        assert all(len(set(drawn)) == 6 for drawn in by_label.values())
        assert all(len({one // DRAWINGS for one in drawn}) == 1 for drawn in by_label.values())
        which.add(tuple(by_label[label][0] // DRAWINGS for label in range(3)))
    assert len(which) > 1
    again = source(torch.Generator().manual_seed(0))
    assert torch.equal(again.query.x, query.x)


def test_fewer_classes_take_the_mean_of_what_was_learned() -> None:
    """A prior for five of twenty exchangeable classes is the mean of theirs; of five, it stays."""
    meta = {"prior": torch.randn(20, 3), "free_rows": torch.arange(20.0), "weight_0": torch.ones(2)}
    few = narrowed(meta, 5)
    assert torch.allclose(few["prior"], meta["prior"].mean(0).expand(5, -1))
    assert torch.equal(few["free_rows"], torch.full((5,), 9.5))
    assert few["weight_0"] is meta["weight_0"]
    assert narrowed(few, 5) is few


def test_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A shortened run gives every method's row and all figures as JSON; one method more keeps the others' figures."""
    write_set(tmp_path / TRAINING, {"A": 3, "B": 2})
    write_set(tmp_path / TEST, {"B": 2, "C": 6})
    figures, picture = tmp_path / "out" / "figures.json", tmp_path / "out" / "picture.png"
    arguments = ["--data", str(tmp_path), "--share", "0.0005", "--tasks", "4"]
    arguments += ["--json", str(figures), "--plot", str(picture)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "the target is not judged" in printed
    assert picture.read_bytes().startswith(b"\x89PNG")
    found = json.loads(figures.read_text("utf-8"))
    assert found["test_alphabets"] == ["C"]
    assert found["methods"].keys() == {"pixels", *METHODS}
    for name, method in METHODS.items():
        assert f"| {method.title} |" in printed
        assert found["methods"][name]["accuracy"].keys() == {"1", "5"}
    found["methods"]["maml"]["title"] = "kept"
    figures.write_text(json.dumps(found), "utf-8")
    assert main([*arguments, "--method", "protonet"]) == 0
    assert json.loads(figures.read_text("utf-8"))["methods"]["maml"]["title"] == "kept"


def test_command_names_the_files_that_it_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong usage, exit code 2."""
    with pytest.raises(SystemExit) as stopped:
        main(["--data", str(tmp_path)])
    assert stopped.value.code == 2
    assert TEST in capsys.readouterr().err


def test_a_missed_target_is_said() -> None:
    """The best method's accuracy is held to the target, once all have been measured."""
    entries: dict[str, dict[str, Any]] = {
        name: {"title": name, "accuracy": {"1": {"mean": 90.0}, "5": {"mean": 99.9}}} for name in METHODS
    }
    assert missed(entries) == [f"the best, protonet, has 90.0% at 1 shot, target {BEST_TARGET}"]
    entries["maml"]["accuracy"] = {"1": {"mean": 99.0}, "5": {"mean": 99.9}}
    assert missed(entries) == []
    del entries["reptile"]
    entries["maml"]["accuracy"]["1"]["mean"] = 0.0
    assert missed(entries) == []


def test_documented_figures_are_the_measured_ones() -> None:
    """The page shows every row of the committed JSON, and the best reaches the target."""
    entries = json.loads((DOCS / "benchmarks" / "omniglot.json").read_text("utf-8"))["methods"]
    page = (DOCS / "benchmarks.md").read_text("utf-8")
    assert [line for line in table(entries).splitlines() if line not in page] == []
    assert max(found["accuracy"]["1"]["mean"] for found in entries.values()) >= BEST_TARGET
    for name, found in entries.items():
        assert name == PIXELS or found["training"] == dict(METHODS[name].training)
