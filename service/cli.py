"""The command ``acclimate``: options, help and exit codes; what commands do is in ``service.commands``.

Exit codes: 0 done, 1 failed with one line on stderr, 2 wrong usage.
"""

import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from models import ModelsError, read_bundle
from service.commands import backup as backup_command
from service.commands import doctor as doctor_command
from service.commands import evaluate as evaluate_command
from service.commands import export as export_command
from service.commands import fsck as fsck_command
from service.commands import improve as improve_command
from service.commands import inspect as inspect_command
from service.commands import keys as keys_command
from service.commands import migrate as migrate_command
from service.commands import replay as replay_command
from service.commands import reshard as reshard_command
from service.commands import serve as serve_command
from service.commands import train as train_command
from service.commands.console import CommandError, err
from service.commands.data import table_for_model, table_for_served
from service.commands.examples import examples
from service.errors import ConfigurationError, ServiceError
from service.playback import PlaybackError, describe_model
from service.schemas import ID_PATTERN


class _Commands(TyperGroup):
    """Failures of all commands become one line here."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (ModelsError, ConfigurationError, ServiceError, CommandError, PlaybackError) as error:
            _fail(str(error))
        except Exception as error:
            if type(error).__module__.startswith("typer"):
                raise  # its own ways out: usage, exit, abort
            _fail(f"unexpected {type(error).__name__}: {error}; this is a bug, please report it")


def _fail(message: str) -> None:
    err.print(f"acclimate: {' '.join(message.split())}", soft_wrap=True, markup=False)
    raise typer.Exit(1)


app = typer.Typer(
    name="acclimate",
    cls=_Commands,
    help="Online adaptation: a meta-trained start, adapted per client stream as labels arrive.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


class Task(StrEnum):
    """What is predicted."""

    regression = "regression"
    classification = "classification"


class Start(StrEnum):
    """What frozen start a committee's experts build on."""

    auto = "auto"
    trees = "trees"
    network = "network"


class Classes(StrEnum):
    """Whose classes are learned: the table's, or each stream's own."""

    fixed = "fixed"
    open = "open"


def _fractions(text: str | None) -> str | None:
    if text is not None and not re.fullmatch(r"(\d*\.?\d*):(\d*\.?\d*)", text):
        raise typer.BadParameter(f"{text!r} is not a range of fractions like 0:0.3 or 0.3:")
    return text


def _lag_target(text: str) -> str:
    if text != "auto" and not text.isdecimal():
        raise typer.BadParameter(f"{text!r} is neither auto nor a number of labels")
    return text


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _one_of(first: tuple[str, object], second: tuple[str, object]) -> None:
    if first[1] is not None and second[1] is not None:
        raise typer.BadParameter(f"state either {first[0]} or {second[0]}, not both")


Files = Annotated[
    list[Path], typer.Option("--data", metavar="FILE…", help="CSV, CSV.gz or Parquet files, read as one table.")
]
MoreFiles = Annotated[list[Path] | None, typer.Argument(hidden=True, help="Further files after --data.")]
Bundle = Annotated[Path, typer.Argument(metavar="MODEL", help="Model bundle (.safetensors).")]
StreamColumn = Annotated[
    str | None,
    typer.Option(help="Column that names each row's stream (default: the model's, else a column called stream)."),
]
TimeColumn = Annotated[
    str | None, typer.Option(help="Column to order rows by (default: the model's, else a column called t or time).")
]
Batch = Annotated[int, typer.Option(min=1, max=10_000, help="Rows of a batch: consecutive rows of one stream.")]
Delay = Annotated[
    int, typer.Option(min=0, help="Rows of the file after which a label is known; 0: before the next row.")
]
ScoreRows = Annotated[
    str | None,
    typer.Option(
        callback=_fractions,
        metavar="FROM:TO",
        help="Score this part of the rows in time order, as 0.3: (default: all).",
    ),
]
ScoreStreams = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Score the streams named in FILE (JSON list or text) (default: all)."),
]
Device = Annotated[str, typer.Option(help="Torch device.")]
Stated = Annotated[
    str | None,
    typer.Option(
        envvar="ACCLIMATE_STORE", metavar="URL", help="The database that streams are kept in (default: the directory)."
    ),
]
JsonFile = Annotated[Path | None, typer.Option("--json", metavar="OUT", help="Write all figures as JSON.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything random.")]


@app.command(epilog=examples("train"))
def train(  # typer reads the help from the declarations
    data: Annotated[
        list[Path] | None,
        typer.Option("--data", metavar="FILE…", help="CSV, CSV.gz or Parquet files, read as one table."),
    ] = None,
    more: MoreFiles = None,
    target: Annotated[str | None, typer.Option(help="Column to predict.")] = None,
    stream_column: Annotated[
        str | None, typer.Option(help="Column that names each row's stream (default: all rows are one stream).")
    ] = None,
    time_column: Annotated[
        str | None, typer.Option(help="Column to order rows by (default: the order of the file).")
    ] = None,
    task: Annotated[
        Task | None, typer.Option(help="What is predicted (default: classes for text and few integers, else numbers).")
    ] = None,
    features: Annotated[
        str | None, typer.Option(metavar="A,B,…", help="Input columns (default: all that have no other role).")
    ] = None,
    classes: Annotated[
        Classes,
        typer.Option(help="The classes of the data, or open: each stream names its own as its labels come."),
    ] = Classes.fixed,
    ways: Annotated[
        int | None,
        typer.Option(min=2, help="With --classes open: most classes of a stream (default: as in the data)."),
    ] = None,
    start: Annotated[
        Start,
        typer.Option(
            help="Frozen start that --algorithm auto builds on: boosted trees, or a network for tables, which takes "
            "longer to fit (auto: trees where scikit-learn is installed)."
        ),
    ] = Start.auto,
    archive_segments: Annotated[
        int, typer.Option(min=0, max=16, help="Left regimes that a stream remembers, to go on from one that returns.")
    ] = 0,
    lag_target: Annotated[
        str, typer.Option(callback=_lag_target, metavar="auto|K", help="Last known labels that become inputs.")
    ] = "auto",
    delay: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Rows of the file after which a label is known; 0: before the next row "
            "(default: 0; with --continue, the model's).",
        ),
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option(callback=_fractions, metavar="FROM:TO", help="Train on this part in time order (default: all)."),
    ] = None,
    streams: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Train on the streams named in FILE (default: all).")
    ] = None,
    tasks: Annotated[str | None, typer.Option(help="A built-in task family instead of --data: sinusoid.")] = None,
    algorithm: Annotated[
        str, typer.Option(metavar="NAME|auto", help="Learner; auto chooses by meta-validation.")
    ] = "auto",
    budget: Annotated[float, typer.Option(min=0.01, metavar="MIN", help="Time to train, minutes.")] = 5.0,
    seed: Seed = 0,
    device: Device = "cpu",
    out: Annotated[Path, typer.Option(metavar="FILE", help="Bundle to write.")] = Path("model.safetensors"),
    search: Annotated[
        bool,
        typer.Option(
            "--search",
            help="Choose the network's widths and depth by meta-validation, in 40% of the budget (default: off).",
        ),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on from OUT.checkpoint, which an interrupted run leaves (default: off)."),
    ] = False,
    parent: Annotated[
        Path | None,
        typer.Option(
            "--continue",
            metavar="MODEL",
            help="Learn this bundle's initialization further on --data, as an export; written only if better on the "
            "held-out end (default: a new model).",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="With --continue: write it even if it is not better (default: off).")
    ] = False,
    json: JsonFile = None,
) -> None:
    """Meta-train on data or on a task family, and write one bundle. Ctrl-C leaves the best so far."""
    _one_of(("--data", data), ("--tasks", tasks))
    _one_of(("--rows", rows), ("--streams", streams))
    settings = train_command.settings(
        task=task.value if task else None,
        lag_target="auto" if lag_target == "auto" else int(lag_target),
        delay=delay or 0,
        algorithm=algorithm,
        budget_minutes=budget,
        seed=seed,
        device=device,
        search=search,
        classes=classes.value,
        ways=ways,
        archive_segments=archive_segments,
        start=start.value,
    )
    if ways is not None and classes is Classes.fixed:
        raise typer.BadParameter("--ways says how many classes a stream may name; state it with --classes open")
    if start is not Start.auto and (algorithm != "auto" or tasks is not None or classes is Classes.open):
        raise typer.BadParameter("--start is for the committee of --algorithm auto on --data, with fixed classes")
    if classes is Classes.open and task is Task.regression:
        raise typer.BadParameter("--classes open is for --task classification")
    if parent is not None:
        if data is None:
            raise typer.BadParameter("state --data FILE, the rows to continue on")
        for name, given in (
            ("--target", target),
            ("--features", features),
            ("--task", task),
            ("--search", search),
            ("--classes", classes is Classes.open),
            ("--start", start is not Start.auto),
        ):
            if given:
                raise typer.BadParameter(f"{name} stays as it is in the model of --continue; leave it out")
        if lag_target != "auto" or algorithm != "auto":
            raise typer.BadParameter("lagged targets and algorithm stay as they are in the model of --continue")
        improve_command.run(
            parent, [*data, *(more or [])], settings, out, delay=delay, stream_column=stream_column,
            time_column=time_column, rows=rows, streams=streams, resume=resume, force=force, json_file=json,
        )  # fmt: skip
        return
    if tasks is not None:
        if classes is Classes.open:
            raise typer.BadParameter("--classes open takes labels from rows; state it with --data")
        if search:
            raise typer.BadParameter("--search chooses by held-out rows; state it with --data")
        train_command.run_tasks(tasks, settings, out, resume=resume, json_file=json)
        return
    if data is None or target is None:
        raise typer.BadParameter("state --data FILE and --target COLUMN, or --tasks FAMILY")
    train_command.run_table(
        [*data, *(more or [])],
        settings,
        out,
        target=target,
        stream_column=stream_column,
        time_column=time_column,
        features=_names(features),
        rows=rows,
        streams=streams,
        resume=resume,
        json_file=json,
    )


@app.command(epilog=examples("evaluate"))
def evaluate(
    model: Bundle,
    data: Files,
    more: MoreFiles = None,
    batch: Batch = 1,
    delay: Delay = 0,
    score_rows: ScoreRows = None,
    score_streams: ScoreStreams = None,
    stream_column: StreamColumn = None,
    time_column: TimeColumn = None,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare", help="Run baselines and, where River is installed, its models on the same rows, too."
        ),
    ] = False,
    seed: Seed = 0,
    device: Device = "cpu",
    json: JsonFile = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="OUT.png", help="Plot rolling scores, drift alarms and calibration.")
    ] = None,
) -> None:
    """Test then train on a file, offline, through the engine that the server uses. Runs everything, scores the part."""
    _one_of(("--score-rows", score_rows), ("--score-streams", score_streams))
    bundle = read_bundle(model)
    table = table_for_model(bundle.spec, [*data, *(more or [])], stream_column, time_column)
    evaluate_command.run(
        bundle,
        table,
        batch=batch,
        delay=delay,
        rows=score_rows,
        streams=score_streams,
        compare=compare,
        seed=seed,
        device=device,
        json_file=json,
        plot_file=plot,
    )


@app.command(epilog=examples("serve", serve_command.settings_help()))
def serve(
    host: Annotated[
        str | None,
        typer.Option(envvar="ACCLIMATE_HOST", show_envvar=True, help="Address to listen on (default: 127.0.0.1)."),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(envvar="ACCLIMATE_PORT", min=0, max=65_535, help="Port; 0 takes a free one (default: 8000)."),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            envvar="ACCLIMATE_DATA_DIR", metavar="DIR", help="Directory of the store (default: acclimate-data)."
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE", help="Model to serve, env var ACCLIMATE_MODEL; repeatable (default: those that ship)."
        ),
    ] = None,
    activate: Annotated[
        bool | None,
        typer.Option(
            "--activate",
            envvar="ACCLIMATE_ACTIVATE",
            help="Make a changed FILE under a known NAME the active version; it is added either way (default: off).",
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(envvar="ACCLIMATE_DEVICE", help="Torch device (default: cpu).")] = None,
    threads: Annotated[
        int | None,
        typer.Option(envvar="ACCLIMATE_THREADS", min=1, help="Threads of one numerical operation (default: 1)."),
    ] = None,
    log_level: Annotated[
        str | None,
        typer.Option(envvar="ACCLIMATE_LOG_LEVEL", help="debug, info, warning or error (default: info)."),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            envvar="ACCLIMATE_STORE",
            metavar="URL",
            help="Keep streams in this database, postgresql://USER@HOST/DATABASE; a password is better in "
            "ACCLIMATE_STORE, ACCLIMATE_STORE_FILE or ~/.pgpass (default: in the directory).",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            envvar="ACCLIMATE_WORKERS",
            min=1,
            metavar="N",
            help="Worker processes that the streams are divided among, fixed for a data directory (default: 1).",
        ),
    ] = None,
) -> None:
    """Start the service, on the embedded store or on a database."""
    models = {}
    for text in model or ():
        name, _, file = text.partition("=")
        if not file or not re.fullmatch(ID_PATTERN, name):
            raise typer.BadParameter(f"--model {text!r}: write NAME=FILE, the name of letters, digits and . _ : -")
        models[name] = Path(file)
    code = serve_command.run(
        host=host,
        port=port,
        data_dir=data_dir,
        store=store,
        models=models or None,
        activate=activate,
        device=device,
        threads=threads,
        workers=workers,
        log_level=log_level,
    )
    if code:
        raise typer.Exit(code)


@app.command(epilog=examples("replay"))
def replay(
    data: Files,
    url: Annotated[str, typer.Option(metavar="URL", help="A running server, as http://127.0.0.1:8000.")],
    model: Annotated[str, typer.Option(metavar="NAME", help="Model to bind the streams to.")],
    more: MoreFiles = None,
    batch: Batch = 1,
    delay: Delay = 0,
    score_rows: ScoreRows = None,
    score_streams: ScoreStreams = None,
    rate: Annotated[
        float, typer.Option(min=0.0, metavar="R", help="Rows of the file a second; 0 is as fast as it goes.")
    ] = 0.0,
    target: Annotated[
        str | None, typer.Option(help="Column of the labels (default: the model's, else target, label or y).")
    ] = None,
    stream_column: StreamColumn = None,
    time_column: TimeColumn = None,
    json: JsonFile = None,
) -> None:
    """Play a data file into a running server; the same score as evaluate, against the frozen start."""
    _one_of(("--score-rows", score_rows), ("--score-streams", score_streams))
    served = describe_model(url, model)
    table = table_for_served(served, [*data, *(more or [])], target, stream_column, time_column)
    replay_command.run(
        url, served, table, batch=batch, delay=delay, rate=rate, rows=score_rows, streams=score_streams, json_file=json
    )


@app.command(epilog=examples("inspect"))
def inspect(model: Bundle, as_json: AsJson = False) -> None:
    """Show what a bundle holds: task, features, experts, detector, provenance, tensors."""
    inspect_command.run(read_bundle(model), as_json=as_json)


@app.command(epilog=examples("reshard"))
def reshard(
    shards: Annotated[int, typer.Option(min=1, max=256, metavar="M", help="Shards, and so workers, from now on.")],
    data_dir: Annotated[
        Path,
        typer.Option(envvar="ACCLIMATE_DATA_DIR", show_envvar=True, metavar="DIR", help="Directory of the store."),
    ] = Path("acclimate-data"),
) -> None:
    """Divide the streams of a stopped server among another number of worker processes."""
    reshard_command.run(data_dir, shards)


@app.command(epilog=examples("export"))
def export(
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Model whose streams' rows to write (default: the only one).")
    ] = None,
    streams: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Streams named in FILE, JSON list or text (default: all).")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Rows committed at TIME or later: ISO 8601 (UTC without a zone) or epoch seconds (default: all).",
        ),
    ] = None,
    tenant: Annotated[str, typer.Option(metavar="T", help="Whose streams.")] = "default",
    data_dir: Annotated[
        Path,
        typer.Option(envvar="ACCLIMATE_DATA_DIR", show_envvar=True, metavar="DIR", help="Directory of the store."),
    ] = Path("acclimate-data"),
    store: Stated = None,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Parquet file to write.")] = Path("export.parquet"),
) -> None:
    """Write the labelled rows that a server has logged as Parquet; the server may be running or stopped."""
    export_command.run(data_dir, model, streams, since, out, tenant, store)


DataDir = Annotated[
    Path, typer.Option(envvar="ACCLIMATE_DATA_DIR", show_envvar=True, metavar="DIR", help="Directory of the store.")
]


@app.command("migrate-store", epilog=examples("migrate-store"))
def migrate_store(
    to: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="An empty database, postgresql://USER@HOST/DATABASE; a password is better in ACCLIMATE_STORE, "
            "ACCLIMATE_STORE_FILE or ~/.pgpass (default: what these say).",
        ),
    ] = None,
    data_dir: DataDir = Path("acclimate-data"),
) -> None:
    """Move the streams of all tenants into PostgreSQL, and compare every row; no server may run meanwhile."""
    migrate_command.run(data_dir, to)


@app.command(epilog=examples("backup"))
def backup(
    to: Annotated[Path, typer.Option(metavar="FOLDER", help="New folder for the copy.")],
    data_dir: DataDir = Path("acclimate-data"),
) -> None:
    """Copy all that a server keeps, while it runs, and check the copy."""
    backup_command.backup(data_dir, to)


@app.command(epilog=examples("restore"))
def restore(
    source: Annotated[Path, typer.Option("--from", metavar="FOLDER", help="What backup has made.")],
    data_dir: DataDir = Path("acclimate-data"),
) -> None:
    """Make a new data directory from a backup, and check it."""
    backup_command.restore(source, data_dir)


@app.command(epilog=examples("fsck"))
def fsck(data_dir: DataDir = Path("acclimate-data"), store: Stated = None, as_json: AsJson = False) -> None:
    """Check that all that is stored is what was written; the server may be running or stopped."""
    fsck_command.run(data_dir, as_json=as_json, store=store)


@app.command(epilog=examples("doctor"))
def doctor(
    data_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Directory of the store (default: that of serve).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look at what would keep a server from running here, and say what to do about it."""
    doctor_command.run(data_dir, as_json=as_json)


keys_app = typer.Typer(name="keys", help="API keys: create, list, revoke, and a first one.", no_args_is_help=True)
app.add_typer(keys_app)


class KeyScope(StrEnum):
    """The most that a key may do."""

    predict = "predict"
    feedback = "feedback"
    admin = "admin"


@keys_app.command("create", epilog=examples("keys create"))
def create_key(
    tenant: Annotated[str, typer.Option(metavar="T", help="Whose streams it reaches; a new name is a new tenant.")],
    scope: Annotated[KeyScope, typer.Option(help="predict reads, feedback also teaches, admin does everything.")],
    requests_per_second: Annotated[
        float, typer.Option(min=0, metavar="N", help="Requests per second and worker (default: the setting).")
    ] = 0.0,
    bytes_per_second: Annotated[
        float, typer.Option(min=0, metavar="N", help="Bytes of requests, likewise (default: the setting).")
    ] = 0.0,
    note: Annotated[str, typer.Option(metavar="TEXT", help="What it is for.")] = "",
    data_dir: DataDir = Path("acclimate-data"),
    as_json: AsJson = False,
) -> None:
    """Make a key and show it, this once."""
    keys_command.create(
        data_dir,
        tenant,
        scope.value,
        requests_per_second=requests_per_second,
        bytes_per_second=bytes_per_second,
        note=note,
        as_json=as_json,
    )


@keys_app.command("list", epilog=examples("keys list"))
def list_keys(data_dir: DataDir = Path("acclimate-data"), as_json: AsJson = False) -> None:
    """List all keys, without what is secret."""
    keys_command.show(data_dir, as_json=as_json)


@keys_app.command("revoke", epilog=examples("keys revoke"))
def revoke_key(
    key: Annotated[str, typer.Argument(metavar="ID", help="The key's id.")], data_dir: DataDir = Path("acclimate-data")
) -> None:
    """Make a key good for nothing; a running server hears of it within a second."""
    keys_command.revoke(data_dir, key)


@keys_app.command("bootstrap", epilog=examples("keys bootstrap"))
def bootstrap_key(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where the key is, or shall be.")],
) -> None:
    """Draw an admin key for a first start into a file that its owner alone can read; leave one that is there."""
    keys_command.bootstrap(file)


def main() -> None:
    """Run the command ``acclimate``; ends the process with its exit code."""
    sys.exit(app())


if __name__ == "__main__":
    main()
