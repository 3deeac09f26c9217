"""``acclimate train --continue``: a new version of a model from newly logged rows, offered only if it is better."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from models import Continued, TrainSettings, bundle_checksum, continue_training, fingerprint, read_bundle, write_bundle
from service.commands.console import CommandError, in_a_folder, number, out, score_grid, write_json
from service.commands.data import tables_for_model
from service.commands.train import following_bar, open_journal, score_table, selected, write_file


def run(
    parent: Path,
    files: Sequence[Path],
    settings: TrainSettings,
    file: Path,
    *,
    delay: int | None,
    stream_column: str | None,
    time_column: str | None,
    rows: str | None,
    streams: Path | None,
    resume: bool,
    force: bool,
    json_file: Path | None = None,
) -> None:
    """Meta-train a bundle further, judge it against itself, and write the new version.

    Raises:
        CommandError: The new version is not better on the held-out end, and is not forced; nothing was written.
    """
    in_a_folder(json_file)
    if file.resolve() == parent.resolve():
        raise CommandError(f"{file} is the model to continue; choose another --out, so that both versions stay")
    model = read_bundle(parent)
    table = selected(tables_for_model(model.spec, files, stream_column, time_column), rows, streams)
    settings = replace(settings, delay=int(model.spec.provenance.get("delay", 0)) if delay is None else delay)
    checksum = bundle_checksum(model)
    stated = {"parent": checksum, "delay": settings.delay, "seed": settings.seed}
    journal, checkpoint = open_journal(file, fingerprint(stated, table), resume=resume)
    with following_bar() as follow:
        try:
            found = continue_training(model, table, replace(settings, journal=journal), follow)
        except KeyboardInterrupt:
            raise CommandError(
                "stopped before the versions were compared; nothing was written, the same command with --resume goes on"
            ) from None
    _tell(found, parent)
    figures = {"measure": found.measure, "new_error": found.new_error, "old_error": found.old_error}
    results = [each.as_dict() for each in (found.old._replace(name="parent"), found.new._replace(name="new version"))]
    write_json(json_file, {"model": str(file), "parent": str(parent), **figures, "results": results})
    if not found.interrupted:
        checkpoint.unlink(missing_ok=True)
    compared = f"{found.measure} {number(found.new_error)} against {number(found.old_error)} of {parent}"
    if not (found.better or force):
        raise CommandError(
            f"the new version is not better on the held-out end: {compared}; nothing was written, --force writes it"
        )
    write_file(file, write_bundle(found.model))
    stopped = "stopped early, the best so far: " if found.interrupted else ""
    out.print(f"{stopped}wrote {file} ({compared})", soft_wrap=True)
    out.print(f"next: acclimate serve --model NAME={file} --activate", soft_wrap=True)


def _tell(found: Continued, parent: Path) -> None:
    """Both versions on the held-out end."""
    spec = found.model.spec
    shown = (found.old._replace(name=parent.name), found.new._replace(name="new version"))
    title = "held-out end, test then train, each stretch from a cold start"
    out.print(score_grid(spec.task, shown, title, f"parent {spec.provenance['parent']['checksum']}"))
    out.print(score_table(str(spec.provenance.get("metric", "score")), spec.provenance["scores"]))
