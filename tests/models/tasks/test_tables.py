"""Data files are read as stated, and what is wrong with one is said in one line."""

import gzip
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from models import DataError, read_table, read_table_for
from models.tasks import Table, column_names, read_stream_names, rows_mask, streams_mask
from tests.models.examples import small_model, write_rows

ROWS = "shop,when,size,colour,open,y\nb,3,1.5,red,true,1\na,1,,blue,false,0\na,2,2.5,,true,1\n"


def _file(folder: Path, text: str = ROWS, name: str = "rows.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def _table(folder: Path) -> Table:
    return read_table([_file(folder)], target="y", stream_column="shop", time_column="when")


def test_rows_are_ordered_by_the_time_column(tmp_path: Path) -> None:
    """The order of the file does not matter where a time column is stated."""
    table = _table(tmp_path)
    assert [table.stream_names[code] for code in table.streams] == ["a", "a", "b"]
    assert table.targets() == [0, 1, 1]


def test_rows_of_the_same_time_keep_the_order_of_the_file(tmp_path: Path) -> None:
    """Sorting is stable."""
    lines = "".join(f"{i // 50},{i}\n" for i in range(200))
    table = read_table([_file(tmp_path, "t,y\n" + lines)], target="y", time_column="t", features=["t"])
    assert table.targets() == [float(i) for i in range(200)]


def test_features_are_numbers_or_categories_with_missing_values(tmp_path: Path) -> None:
    """Strings and booleans are categories, written as JSON's booleans are encoded; what is missing is None."""
    table = _table(tmp_path)
    assert table.features == ("size", "colour", "open")
    assert table.values() == [[None, "blue", "False"], [2.5, None, "True"], [1.5, "red", "True"]]
    assert table.values([2, 0]) == [[1.5, "red", "True"], [None, "blue", "False"]]


@pytest.mark.parametrize(
    ("column", "task"),
    [
        (["x", "y", "x"], "classification"),
        ([True, False, True], "classification"),
        ([0, 1, 1], "classification"),
        ([0.0, 1.0, 1.0], "regression"),
        (list(range(30)), "regression"),
    ],
)
def test_task_is_inferred_from_the_target(tmp_path: Path, column: list[object], task: str) -> None:
    """Strings, booleans and few integers are classes, everything else is a number; the reason is told."""
    file = tmp_path / "rows.parquet"
    pl.DataFrame({"a": [0.5] * len(column), "y": column}).write_parquet(file)
    table = read_table([file], target="y")
    assert table.task == task
    assert "'y' holds" in table.task_reason


def test_classes_keep_their_type_and_are_sorted(tmp_path: Path) -> None:
    """Integers stay integers and strings stay strings."""
    table = read_table([_file(tmp_path, "a,y\n1,7\n2,3\n3,7\n")], target="y")
    assert table.classes == (3, 7)
    assert table.targets() == [7, 3, 7]


def test_stated_task_wins(tmp_path: Path) -> None:
    """Two integers can be numbers."""
    table = read_table([_file(tmp_path)], target="y", features=["size"], task="regression")
    assert isinstance(table.target, np.ndarray)
    assert table.targets() == [1.0, 0.0, 1.0]


def test_csv_gz_parquet_and_several_files_give_the_same_rows(tmp_path: Path) -> None:
    """Whatever the format, and in however many pieces."""
    plain = write_rows(tmp_path / "all.csv", 60)
    lines = plain.read_text().splitlines(keepends=True)
    zipped = tmp_path / "first.csv.gz"
    zipped.write_bytes(gzip.compress("".join(lines[:31]).encode()))
    rest = _file(tmp_path, lines[0] + "".join(lines[31:]), "rest.csv")
    parquet = tmp_path / "all.parquet"
    pl.read_csv(plain).write_parquet(parquet)
    tables = [
        read_table(files, target="y", stream_column="shop", time_column="t")
        for files in ([plain], [zipped, rest], [parquet])
    ]
    assert all(table.values() == tables[0].values() for table in tables)
    assert all(table.targets() == tables[0].targets() for table in tables)
    assert all(table.stream_names == tables[0].stream_names for table in tables)
    assert tables[1].name == "first.csv.gz, rest.csv"


def test_without_stream_column_all_rows_are_one_stream(tmp_path: Path) -> None:
    """It bears the file's name."""
    table = read_table([_file(tmp_path)], target="y", features=["size"])
    assert table.stream_names == ("rows",)
    assert not table.streams.any()


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        (ROWS, {"target": "price"}, "no column 'price' for the target; the columns are shop, when, size, colour, open"),
        (ROWS, {"target": "y", "stream_column": "store"}, "no column 'store' for the stream column"),
        (ROWS, {"target": "y", "time_column": "t"}, "no column 't' for the time column"),
        (ROWS, {"target": "y", "features": ["size", "depth"]}, "no column 'depth' for the feature"),
        (ROWS, {"target": "y", "features": ["y"]}, "'y' is the target and cannot be a feature too"),
        (ROWS.splitlines()[0] + "\n", {"target": "y"}, "no rows"),
        ("a,y\n1,2.5\n2,\n", {"target": "y"}, "the target 'y' has no value in row 1"),
        ("a,y\n1,2.5\n2,inf\n", {"target": "y"}, "the target 'y' is not finite in row 1"),
        ("a,y\n1,2.5\ninf,3\n", {"target": "y"}, "the feature 'a' is infinite in row 1"),
        ("a,y\n1,2.5\n2,3.5\n", {"target": "y", "task": "classification"}, "fractions, which are no classes"),
        ("a,y\n1,red\n2,blue\n", {"target": "y", "task": "regression"}, "'y' is read as a number but holds other"),
        ("a,t,y\n1,2020-01-01,2.5\n", {"target": "y"}, "the feature 't' holds dates"),
        ("y\n1\n", {"target": "y"}, "no column is left as a feature"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(tmp_path: Path, text: str, options: dict[str, object], said: str) -> None:
    """One line: the file, the column, and what to do."""
    with pytest.raises(DataError) as caught:
        read_table([_file(tmp_path, text)], **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert said in message
    assert message.startswith("rows.csv: ")
    assert "\n" not in message


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    """A missing file, an unknown ending, a broken archive and differing columns each get their own line."""
    broken = tmp_path / "rows.csv.gz"
    broken.write_bytes(gzip.compress(ROWS.encode())[:-20])
    parquet = _file(tmp_path, "no parquet", "rows.parquet")
    other = _file(tmp_path, "a,y\n1,2\n", "other.csv")
    for files, said in (
        ([tmp_path / "absent.csv"], "no such file"),
        ([_file(tmp_path, ROWS, "rows.xls")], "does not end in"),
        ([broken], "cannot be read"),
        ([parquet], "cannot be read"),
        ([_file(tmp_path), other], "columns differ"),
    ):
        with pytest.raises(DataError, match=said):
            read_table(files, target="y")


def test_model_reads_only_what_it_was_trained_on(tmp_path: Path) -> None:
    """Features, classes, stream and time columns come from the bundle; other columns are left alone."""
    file = _file(tmp_path, "t,shop,extra,b,a,y\n2,x,?,1,2,no\n1,x,?,3,4,yes\n")
    table = read_table_for(small_model("classification").spec, [file])
    assert table.values() == [[4.0, 3.0], [2.0, 1.0]]
    assert (table.classes, table.stream_names) == (("no", "yes"), ("x",))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("t,shop,a,b,y\n1,x,1,2,maybe\n", "holds maybe; the model's classes are no, yes"),
        ("t,shop,a,b,y\n1,x,1,,no\n", "1 rows have no value for 'b'"),
    ],
)
def test_model_refuses_rows_that_it_cannot_take(tmp_path: Path, text: str, said: str) -> None:
    """Unknown classes and missing values are named before anything runs."""
    with pytest.raises(DataError, match=said):
        read_table_for(small_model("classification").spec, [_file(tmp_path, text)])


@pytest.mark.parametrize(
    ("text", "first", "last"), [("0:0.3", 0, 29), ("0.3:", 30, 99), (":", 0, 99), ("0.29:0.57", 29, 56)]
)
def test_fractions_select_rows_in_time_order(tmp_path: Path, text: str, first: int, last: int) -> None:
    """A bound is the product rounded down, so that 0:f and f: share no row and miss none."""
    table = read_table([write_rows(tmp_path / "rows.csv", 100)], target="y", time_column="t", stream_column="shop")
    chosen = np.flatnonzero(rows_mask(table, text))
    assert (chosen[0], chosen[-1]) == (first, last)


@pytest.mark.parametrize("text", ["0.3", "0.5:0.2", "0:2", "a:b", "-1:0.5"])
def test_other_ranges_are_refused(tmp_path: Path, text: str) -> None:
    """A range of fractions between 0 and 1, and nothing else."""
    with pytest.raises(DataError, match="not a range of fractions"):
        rows_mask(_table(tmp_path), text)


def test_streams_are_selected_by_a_file_of_names(tmp_path: Path) -> None:
    """A JSON list, or text with one name a line."""
    table = _table(tmp_path)
    for text in ('["a"]', "a\n\n"):
        names = read_stream_names(_file(tmp_path, text, "names"))
        part = table.take(streams_mask(table, names), "streams of names")
        assert (part.stream_names, part.rows, part.part) == (("a",), 2, "streams of names")


@pytest.mark.parametrize(
    ("text", "said"), [("", "empty"), ('{"a": 1}', "not a list"), ("[1", "not valid JSON"), ("c\n", "no stream c")]
)
def test_wrong_files_of_names_are_refused(tmp_path: Path, text: str, said: str) -> None:
    """Nothing is selected by guessing."""
    with pytest.raises(DataError, match=said):
        streams_mask(_table(tmp_path), read_stream_names(_file(tmp_path, text, "names")))


def test_empty_selection_is_refused(tmp_path: Path) -> None:
    """A part without rows cannot be trained on."""
    table = _table(tmp_path)
    with pytest.raises(DataError, match="no rows are left"):
        table.take(np.zeros(3, dtype=np.bool_))


def test_column_names_are_read_without_knowing_the_target(tmp_path: Path) -> None:
    """For guessing which column is which."""
    assert column_names([_file(tmp_path)]) == ["shop", "when", "size", "colour", "open", "y"]
