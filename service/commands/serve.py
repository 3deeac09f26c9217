"""``acclimate serve``: the service on the embedded store, or on a database."""

from typing import Any

import orjson

from service.app import create_app
from service.commands.console import out
from service.config import PREFIX, Settings, load_settings
from service.server import run as run_server
from service.store import Database
from service.supervisor import supervise
from service.types import ModelInfo

OPTIONS = ("host", "port", "data_dir", "store", "models", "activate", "device", "threads", "workers", "log_level")
"""Settings that are options of the command line."""


def run(**given: Any) -> int:
    """Serve until told to stop.

    Args:
        given: Settings given on the command line; None counts as not given.

    Returns:
        The exit code.

    Raises:
        ConfigurationError: The settings cannot be served with.
    """
    settings = load_settings(**given)

    def announce(url: str, models: list[ModelInfo]) -> None:
        place = settings.data_dir if settings.store_url is None else Database(settings.store_url).place()
        out.print(f"serving at [bold]{url}[/bold], data in {place}; stop with Ctrl-C", soft_wrap=True)
        for line in first_request(url, models):
            out.print(line, soft_wrap=True, markup=False)

    if settings.workers > 1:
        return supervise(settings, announce)
    app = create_app(settings)
    run_server(app, announce=lambda url: announce(url, app.state.context.streams.models()))
    return 0


def first_request(url: str, models: list[ModelInfo]) -> list[str]:
    """How to begin, as lines for the terminal."""
    if not models:
        return ["no model is served: start again with --model NAME=FILE"]
    info = models[0]
    row = [feature.categories[0] if feature.categories else 0.5 for feature in info.features]
    target = info.classes[0] if info.classes else "a" if info.ways else 1.0
    lines = [
        f"models: {', '.join(f'{each.name} (version {each.active_version})' for each in models)}",
        f"dashboard: {url}/   interactive documentation: {url}/docs",
        "a first stream, its first labelled row, and a prediction:",
    ]
    for method, path, body in (
        ("PUT", "", {"model": info.name}),
        ("POST", "/feedback", {"inputs": [row], "targets": [target]}),
        ("POST", "/predict", {"inputs": [row]}),
    ):
        data = orjson.dumps(body).decode()
        lines.append(f"  curl -X {method} {url}/v1/streams/first{path} -H 'content-type: application/json' -d '{data}'")
    return lines


def settings_help() -> str:
    """The settings that are variables only, with default and unit, for the command's help."""
    lines = ["Every option is also a variable ACCLIMATE_…. These settings are variables only:"]
    for name, field in Settings.model_fields.items():
        if name not in OPTIONS:
            lines.append(f"{PREFIX}{name.upper()}: {field.description} (default: {field.default})")
    return "\n\n".join(lines)
