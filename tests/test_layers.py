"""The direction of imports: the table is here, and the source must agree with it."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("models", "service", "loadtest")

LAYERS: tuple[tuple[str, ...], ...] = (
    # Bottom first. A module imports from its own layer and the layers above this line only. `x` is that module,
    # `x.*` everything below a package; the more exact entry counts.
    ("models.types", "models.errors"),
    ("models.vocabulary", "models.unnamed", "models.ragged"),
    ("models.networks", "models.losses", "models.params", "models.features", "models.targets", "models.trees"),
    ("models.tabular",),
    ("models.start", "models.kalman"),
    ("models.memory", "models.crossfit", "models.boosting", "models.reverting"),
    ("models.learners.*", "models.detectors.*"),
    ("models.learners", "models.detectors"),
    ("models.committee", "models.virtual_drift"),
    ("models.combination", "models.suspicion", "models.reference", "models.plan"),
    ("models.experts",),
    ("models.readaptation",),
    ("models.adaptation", "models.metatrain", "models.bundle", "models.slab", "models.portable"),
    ("models.tasks", "models.tasks.*"),
    ("models.journal", "models.watching"),
    ("models.answers", "models.stream_config"),
    ("models.engine", "models.process"),
    ("models.calibration", "models.scores", "models.lockstep", "models.prequential"),
    ("models.contest",),
    ("models.baselines", "models.window", "models.rivers"),
    ("models.evaluation",),
    ("models.training",),
    ("models.audition", "models.starting"),
    ("models.coldstart",),
    ("models.selection", "models.casting", "models.search"),
    ("models.trainer",),
    ("models.continuing",),
    ("models",),
    ("service", "service.errors"),
    ("service.client", "service.client.*"),
    ("service.keys",),
    ("service.scopes",),
    (
        "service.allocator",
        "service.config",
        "service.types",
        "service.json_body",
        "service.logs",
        "service.threads",
        "service.metrics",
        "service.tracing",
    ),
    ("service.spans",),
    ("service.schemas", "service.problems", "service.payload", "service.store", "service.store.*"),
    ("service.statistics",),
    ("service.oip", "service.oip.*"),
    ("service.lines",),
    ("service.arrow",),
    ("service.patience",),
    ("service.shards",),
    ("service.links",),
    ("service.forwarding",),
    ("service.registry", "service.replay", "service.telling", "service.views"),
    ("service.batcher", "service.bells", "service.addresses", "service.overview", "service.past_rows"),
    ("service.webhooks",),
    ("service.hot",),
    ("service.idempotency",),
    ("service.predicting", "service.configuring"),
    ("service.starts", "service.restoring"),
    ("service.history", "service.activation"),
    ("service.catalogue",),
    ("service.pace", "service.pending", "service.preparing"),
    ("service.learning", "service.late"),
    ("service.following",),
    ("service.streams",),
    ("service.fleet",),
    ("service.many", "service.uploading"),
    ("service.inference",),
    ("service.routes", "service.routes.*"),
    ("service.middleware", "service.openapi"),
    ("service.guard", "service.tenants"),
    ("service.hotpath",),
    ("service.app",),
    ("service.server",),
    ("service.working", "service.supervisor"),
    ("service.playback",),
    ("service.commands", "service.commands.*"),
    ("service.cli", "service.demo"),
    ("service.entry", "service.worker"),
    ("loadtest", "loadtest.*"),
)

DOORS = ("models", "service.store", "service.oip")
"""Packages that the code outside them enters by what they export, never by a module inside."""

WEB = frozenset({"fastapi", "starlette", "uvicorn", "httpx", "pydantic", "pydantic_settings"})
DATABASE = frozenset({"sqlite3", "psycopg"})
FORBIDDEN: Mapping[str, frozenset[str]] = {
    "models": WEB | DATABASE,
    "models.detectors": frozenset({"torch"}),
    "service": frozenset({"torch"}),
}
"""Packages that a package and everything below it leaves alone."""

OPTIONAL_EXTRAS: Mapping[str, frozenset[str]] = {
    "loadtest.realdata": frozenset({"sklearn"}),
    "models.boosting": frozenset({"sklearn"}),
    "loadtest.tabular": frozenset({"sklearn"}),
    "models.rivers": frozenset({"river"}),
    "service.store.driver": frozenset({"psycopg"}),
}
"""Modules that import an optional extra inside a function, and which: one place each."""


@dataclass(frozen=True)
class Import:
    """One import statement's target, as a dotted name, and where it stands."""

    name: str
    line: int
    in_function: bool


def imports_of(source: str, module: str, *, is_package: bool, known: frozenset[str]) -> Iterator[Import]:
    """Every import of a module; ``from a import b`` is a.b where that is a module of ours, otherwise a."""
    here = module.split(".") if is_package else module.split(".")[:-1]

    def visit(node: ast.AST, *, in_function: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, in_function) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            inner = (f"{origin}.{alias.name}" for alias in node.names)
            targets = dict.fromkeys(name if name in known else origin for name in inner)
            yield from (Import(name, node.lineno, in_function) for name in targets)
        inside = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, in_function=inside)

    return visit(ast.parse(source), in_function=False)


def modules() -> dict[str, Path]:
    """Our modules by dotted name."""
    found = {}
    for path in sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()
IMPORTS = {
    name: tuple(
        imports_of(path.read_text("utf-8"), name, is_package=path.name == "__init__.py", known=frozenset(MODULES))
    )
    for name, path in MODULES.items()
}


def layer(module: str) -> int:
    """Number of a module's layer, from the bottom; the exact entry before the nearest ``package.*``; -1 for none."""
    parts = module.split(".")
    entries = [module, *(".".join(parts[:end]) + ".*" for end in range(len(parts) - 1, 0, -1))]
    for entry in entries:
        for number, members in enumerate(LAYERS):
            if entry in members:
                return number
    return -1


def inside(module: str, package: str) -> bool:
    """Whether a module is the package or lies below it."""
    return module == package or module.startswith(package + ".")


def listing(lines: list[str]) -> str:
    """A failure message that is never cut short."""
    return "\n" + "\n".join(lines)


def test_every_module_has_a_layer() -> None:
    """A new module is placed in the table by whoever adds it."""
    homeless = [name for name in MODULES if layer(name) < 0]
    assert not homeless, listing(homeless)


def test_every_entry_of_the_table_exists() -> None:
    """The table names no module that has gone."""
    entries = [entry for members in LAYERS for entry in members if not entry.endswith(".*")]
    gone = [entry for entry in entries if entry not in MODULES]
    assert not gone, listing(gone)


def test_imports_point_down() -> None:
    """No module imports from a layer above its own."""
    upward = [
        f"{name}:{found.line} imports {found.name}"
        for name, all_found in IMPORTS.items()
        for found in all_found
        if found.name in MODULES and layer(found.name) > layer(name) >= 0
    ]
    assert not upward, listing(upward)


def test_imports_make_no_cycle() -> None:
    """Within a layer too, some order of loading has every module after what it imports."""
    graph = {name: {found.name for found in all_found} & MODULES.keys() for name, all_found in IMPORTS.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' → '.join(error.args[1])}")


def test_no_import_stands_inside_a_function_except_optional_extras() -> None:
    """What a module needs is said at its top; an extra that may be absent is imported in one listed place."""
    found_inside = {
        (name, found.name.partition(".")[0])
        for name, all_found in IMPORTS.items()
        for found in all_found
        if found.in_function
    }
    assert found_inside == {(name, package) for name, packages in OPTIONAL_EXTRAS.items() for package in packages}


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_package_leaves_foreign_tools_alone(package: str) -> None:
    """Numerics know no web and no database; the service knows no tensors."""
    wrong = [
        f"{name}:{found.line} imports {found.name}"
        for name, all_found in IMPORTS.items()
        for found in all_found
        if inside(name, package) and found.name.partition(".")[0] in FORBIDDEN[package]
    ]
    assert not wrong, listing(wrong)


@pytest.mark.parametrize("door", DOORS)
def test_a_package_is_entered_by_its_door(door: str) -> None:
    """Outside a package, only what its ``__init__`` exports is used."""
    wrong = [
        f"{name}:{found.line} imports {found.name}"
        for name, all_found in IMPORTS.items()
        for found in all_found
        if not inside(name, door) and found.name.startswith(door + ".")
    ]
    assert not wrong, listing(wrong)


def test_reading_imports_resolves_every_form() -> None:
    """Absolute, relative, submodule and nested imports are all seen as what they load."""
    source = "import torch.nn\nfrom a import b, c\nfrom . import d\ndef f():\n    from ..g import h\n"
    known = frozenset({"a.b", "x.y.d", "x.g"})
    found = list(imports_of(source, "x.y.z", is_package=False, known=known))
    assert [item.name for item in found] == ["torch.nn", "a.b", "a", "x.y.d", "x.g"]
    assert [item.in_function for item in found] == [False, False, False, False, True]
    of_package = list(imports_of("from . import d", "x.y", is_package=True, known=known))
    assert [item.name for item in of_package] == ["x.y.d"]
