"""``acclimate replay``: a data file played into a running server."""

from pathlib import Path

from models import Table
from service.commands.console import alarm_lines, in_a_folder, number, out, progress_bar, score_grid, write_json
from service.commands.data import select
from service.playback import Played, Served, play


def run(
    url: str,
    served: Served,
    table: Table,
    *,
    batch: int,
    delay: int,
    rate: float,
    rows: str | None,
    streams: Path | None,
    json_file: Path | None = None,
) -> Played:
    """Play, and print the score of the streams against the frozen start's; figures go to a file if one is named."""
    in_a_folder(json_file)
    scored, part = select(table, rows, streams)
    with progress_bar() as bar:
        task = bar.add_task(f"{table.name} → {url}", total=table.rows)
        done = play(
            url,
            served,
            table,
            batch=batch,
            delay=delay,
            rate=rate,
            scored=scored,
            progress=lambda rows_done: bar.update(task, completed=rows_done),
        )
    title = f"{served.name} at {url} on {table.name}" + (f", {part}" if part else "")
    out.print(score_grid(table.task, done.scores, title, f"batch {batch}, label delay {delay} rows"))
    for line in alarm_lines(done.runs[-1].alarms or ()):
        out.print(line)
    if done.known_streams:
        out.print(
            f"{done.known_streams} of {len(table.stream_names)} streams were known to the server and went on from "
            "where they were; delete or reset them for a fresh start"
        )
    frozen, adapted = done.scores
    speed = table.rows / done.seconds if done.seconds else 0.0
    out.print(
        f"frozen start {number(frozen.score)} → adapted {number(adapted.score)}; {table.rows:,} rows in "
        f"{done.seconds:.1f} s ({speed:,.0f} rows/s)"
    )
    figures = {
        "model": served.name,
        "data": table.name,
        "part": part,
        "batch": batch,
        "delay": delay,
        "results": [scores.as_dict() for scores in done.scores],
        "alarms": [alarm._asdict() for alarm in done.runs[-1].alarms or ()],
        "seconds": done.seconds,
    }
    write_json(json_file, figures)
    return done
