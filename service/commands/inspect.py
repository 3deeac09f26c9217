"""``acclimate inspect``: what a bundle holds."""

from dataclasses import asdict
from typing import Any

import orjson
from rich.table import Table as Grid
from rich.text import Text

from models import Model
from service.commands.console import number, out


def run(model: Model, *, as_json: bool = False) -> None:
    """Print a bundle's header and the sizes of its tensors; as JSON, the header as it is and the tensors."""
    spec = model.spec
    if as_json:
        shapes = {
            name: {
                "shape": list(tensor.shape),
                "type": str(tensor.dtype),
                "bytes": tensor.numel() * tensor.element_size(),
            }
            for name, tensor in sorted(model.meta.items())
        }
        out.print_json(_json({**asdict(spec), "tensors": shapes}))
        return
    about = Grid.grid(padding=(0, 2))
    for key, value in _facts(model).items():
        about.add_row(Text(key, style="bold"), Text(str(value)))
    out.print(about)
    features = Grid(title="features, in the order of a row", title_justify="left")
    for name in ("name", "kind", "statistics or vocabulary", "missing"):
        features.add_column(name)
    for feature in spec.features:
        vocabulary = ", ".join(feature.categories[:8]) + (" …" if len(feature.categories) > 8 else "")  # noqa: PLR2004
        numeric = f"mean {feature.mean:.4g}, std {feature.std:.4g}"
        features.add_row(
            feature.name,
            feature.kind,
            numeric if feature.kind == "numeric" else vocabulary,
            "allowed" if feature.missing else "refused",
        )
    out.print(features)
    tensors = Grid(title="tensors", title_justify="left")
    for name in ("name", "shape", "type"):
        tensors.add_column(name)
    tensors.add_column("bytes", justify="right")
    for name, tensor in sorted(model.meta.items()):
        size = tensor.numel() * tensor.element_size()
        tensors.add_row(name, "×".join(map(str, tensor.shape)) or "scalar", str(tensor.dtype), f"{size:,}")
    out.print(tensors)


def _facts(model: Model) -> dict[str, Any]:
    spec = model.spec
    target = spec.target
    if spec.task == "classification":
        classes = ", ".join(map(str, target.classes)) or f"open, at most {target.ways} that each stream names itself"
        about_target = f"{target.name}, classes {classes}"
    else:
        about_target = f"{target.name}, power {target.power:g}, {len(target.mean)} output(s)"
        if target.low and target.high:
            about_target += f", trained on labels from {min(target.low):g} to {max(target.high):g}"
    facts: dict[str, Any] = {
        "name": spec.name,
        "task": spec.task,
        "target": about_target,
        "lagged targets": f"labels back {list(spec.lags.offsets)}, means at rates {list(spec.lags.rates)}"
        if spec.lags.offsets or spec.lags.rates
        else "none",
    }
    for expert in spec.experts:
        facts[f"expert {expert.name}"] = f"{expert.learner} {_json(dict(expert.hyper_parameters))}"
    facts["share"] = f"{spec.share:g} a row, challenger {spec.challenger_share:g}"
    facts["detector"] = f"{spec.detector.name} {_json(dict(spec.detector.settings))}"
    facts["window"] = f"{spec.window_rows} rows, at least {spec.min_rows} for a re-adaptation"
    facts["standardiser"] = f"{spec.standardiser_rows} rows" if spec.standardiser_rows else "fixed"
    for key, value in spec.provenance.items():
        facts[key] = _lines(value)
    sizes = [tensor.numel() * tensor.element_size() for tensor in model.meta.values()]
    facts["tensors"] = f"{len(sizes)}, {sum(sizes):,} bytes"
    return facts


def _lines(value: Any) -> str:
    """A provenance entry, its parts one a line."""
    if isinstance(value, dict):
        return "\n".join(f"{key}: {number(part) if isinstance(part, float) else part}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return "\n".join(str(part) for part in value)
    return "–" if value in (None, "") else str(value)


def _json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS, default=str).decode()
