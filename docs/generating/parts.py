"""Settings, metrics, learners, detectors, tasks and errors."""

import ast
import inspect
from collections.abc import Iterable
from typing import Any

import models.errors
import service.client.errors
import service.errors
from docs.generating.idle import nothing
from docs.generating.text import page, parsed, settings_table, table
from models import DETECTORS, LEARNERS, Sinusoid, Table, read_table
from service.commands.serve import OPTIONS
from service.config import PREFIX, Settings
from service.errors import ServiceError

MACHINES = ("task", "inputs", "outputs")
"""Settings of a learner that follow from the data."""


def settings() -> str:
    """Every setting, as variable and as option."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        shown = "" if default is None or default == {} else f"`{default}`"
        option = {"models": "`--model`"}.get(name, f"`--{name.replace('_', '-')}`") if name in OPTIONS else ""
        variable = f"`{PREFIX}{'MODEL' if name == 'models' else name.upper()}`"
        rows.append((variable, option, shown, _bounds(field.metadata), field.description or ""))
    introduction = (
        "Read once when `acclimate serve` starts: options, then variables, then defaults. An unknown variable"
        f" `{PREFIX}…` is refused. Units stand last in the names."
    )
    return page("Settings", introduction, table(("variable", "option", "default", "bounds", "meaning"), rows))


def _bounds(metadata: Iterable[Any]) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    found = [
        f"{sign} {getattr(each, name)}" for each in metadata for name, sign in signs.items() if hasattr(each, name)
    ]
    return ", ".join(found)


def metrics() -> str:
    """Every metric of the service itself, with its labels."""
    streams = nothing()
    labels = {
        name: each._labelnames  # noqa: SLF001 - prometheus_client has no other way to tell
        for each in vars(streams.metrics).values()
        for name in [getattr(each, "_name", "")]
        if name
    }
    rows = []
    for name, meaning, kind, samples in streams.metrics.stated():
        if name.startswith("process_"):
            continue
        full = {"counter": f"{name}_total", "info": f"{name}_info"}.get(kind, name)
        own = labels.get(name) or tuple(dict.fromkeys(label for _, found, _ in samples for label in found))
        rows.append((f"`{full}`", kind, ", ".join(f"`{label}`" for label in own if label != "le"), meaning))
    introduction = (
        "`GET /metrics`, in Prometheus's text format; beside these those of the process (`process_…`). With "
        "several workers each has the label `worker`, and the tenant `default` sees all tenants by the label "
        "`tenant`. What the values of the labels mean and what is worth an alert: "
        "[operations](../operations.md)."
    )
    return page("Metrics", introduction, table(("metric", "type", "labels", "meaning"), rows))


def learners() -> str:
    """Every entry of LEARNERS."""
    introduction = (
        "`train --algorithm NAME`, where `auto` is a committee of Bayesian heads. Settings are "
        "hyper-parameters of a bundle's experts, which `train` sets; those that follow from the data are left"
        " out."
    )
    return page("Learners", introduction, *(_described(name, each) for name, each in LEARNERS.items()))


def detectors() -> str:
    """Every entry of DETECTORS."""
    introduction = (
        "A stream's `config` names its detector (`PUT /v1/streams/{stream}`); [which "
        "one](../how-to/choose-a-detector.md). Settings are those of the bundle. Signals are a row's negative"
        " log-likelihood (`nll`) or its error."
    )
    return page("Detectors", introduction, *(_described(name, each) for name, each in DETECTORS.items()))


def _described(name: str, kind: Any) -> str:
    found = parsed(kind)
    tasks = getattr(kind, "tasks", None)
    parts = [f"## {name}", found.text]
    if tasks is not None:
        parts.append(f"For {' and '.join(sorted(tasks))}.")
    parts.append(settings_table(kind, leave_out=MACHINES))
    parts += [f"*{line}*" for line in found.references]
    return "\n\n".join(part for part in parts if part)


def tasks() -> str:
    """Where tasks come from."""
    introduction = (
        "What models are meta-trained on: `train --data` cuts a table of labelled rows into episodes, a "
        "stretch to adapt on and what follows it to be judged on; `train --tasks` draws from a built-in "
        "family."
    )
    reading = parsed(read_table)
    arguments = [(f"`{name}`", meaning) for name, meaning in reading.entries.items()]
    fields = [(f"`{name}`", meaning) for name, meaning in parsed(Table).entries.items()]
    return page(
        "Tasks", introduction,
        "## Tables", reading.text, table(("asked for", "meaning"), arguments),
        parsed(Table).text, table(("a table has", "meaning"), fields),
        "## sinusoid", parsed(Sinusoid).text, settings_table(Sinusoid),
    )  # fmt: skip


def errors() -> str:
    """What can go wrong, over HTTP, in the client and in the package ``models``."""
    rows = [
        (str(each.status), f"`{each.title}`", parsed(each).text)
        for each in sorted(_tree(ServiceError), key=lambda each: each.status)
        if "status" in vars(each)
    ]
    shape = (
        "`application/problem+json` (RFC 9457): `type`, `title`, `status`, `detail`, which is a sentence that"
        " says what is wrong and what to do, `instance`; with 422 `errors`, a list of `{loc, msg}`. Below "
        '`/v2` the body is `{"error"}`. Inputs are never repeated. 429 and 503 have `Retry-After`.'
    )
    parts = ["## HTTP", shape, table(("status", "title", "when"), rows)]
    for heading, module in (
        ("Python client, `service.client`", service.client.errors),
        ("Package `models`", models.errors),
    ):
        parts += [f"## {heading}", f"```text\n{_drawn(module)}\n```"]
    return page("Errors", *parts)


def _tree(root: type[ServiceError]) -> list[type[ServiceError]]:
    return [root, *(below for each in root.__subclasses__() for below in _tree(each))]


def _drawn(module: Any) -> str:
    """The tree that the module's docstring draws."""
    text = ast.get_docstring(ast.parse(inspect.getsource(module))) or ""
    return "\n".join(line for line in text.split("\n\n")[1].splitlines() if line.strip())
