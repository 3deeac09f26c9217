"""``acclimate evaluate``: test then train, offline, through the engine that the server uses."""

from pathlib import Path

import orjson

from models import Model, Table, evaluate
from service.commands.console import CommandError, alarm_lines, number, out, progress_bar, score_grid
from service.commands.data import select
from service.commands.plot import plot


def run(
    model: Model,
    table: Table,
    *,
    batch: int,
    delay: int,
    rows: str | None,
    streams: Path | None,
    compare: bool,
    seed: int,
    device: str,
    json_file: Path | None,
    plot_file: Path | None,
) -> None:
    """Run, print, and write what was asked for.

    Raises:
        CommandError: A file cannot be written.
    """
    for file in (json_file, plot_file):
        if file is not None and not file.resolve().parent.is_dir():
            raise CommandError(f"{file}: there is no such folder; make it first")
    scored, part = select(table, rows, streams)
    with progress_bar() as bar:
        tasks = {}

        def follow(name: str, done: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=table.rows)
            bar.update(tasks[name], completed=done)

        evaluation = evaluate(
            model,
            table,
            batch=batch,
            delay=delay,
            scored=scored,
            compare=compare,
            seed=seed,
            device=device,
            progress=follow,
        )
    title = f"{model.spec.name} on {table.name}" + (f" ({part})" if part else "")
    detail = f"batch {batch}, label delay {delay} rows, {len(table.stream_names)} streams"
    out.print(score_grid(table.task, evaluation.scores, title, detail))
    for line in alarm_lines(evaluation.report.adapted.alarms or ()):
        out.print(line)
    frozen, adapted = evaluation.scores[0], evaluation.scores[-1]
    out.print(f"frozen start {number(frozen.score)} → adapted {number(adapted.score)}")
    if json_file is not None:
        body = {"model": model.spec.name, "part": part, **evaluation.as_dict()}
        try:
            json_file.write_bytes(orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY))
        except OSError as error:
            raise CommandError(f"{json_file}: cannot be written ({error.strerror}); choose another --json") from None
        out.print(f"wrote {json_file}", soft_wrap=True)
    if plot_file is not None:
        plot(evaluation, plot_file, f"{title}: {detail}")
        out.print(f"wrote {plot_file}", soft_wrap=True)
