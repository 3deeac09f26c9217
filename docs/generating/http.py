"""Every route, from the OpenAPI description."""

from collections.abc import Mapping
from typing import Any

from docs.generating.idle import SETTINGS, nothing
from docs.generating.text import markdown, page, table
from service.app import create_app
from service.openapi import describe
from service.scopes import SCOPE_OF

Json = Mapping[str, Any]
INTRODUCTION = """\
Paths, bodies and answers, as the service describes them at `/docs` and `/openapi.json`. *Key* is the least scope
that a key must have ([keys](../keys.md)); *fails with* are statuses, whose bodies are told of in [errors](errors.md).
"""


def http() -> str:
    """The page."""
    document = describe(create_app(SETTINGS, streams=nothing()))
    operations = [(path, method, each) for path, at in document["paths"].items() for method, each in at.items()]
    schemas = document["components"]["schemas"]
    listing = [
        (f"[`{method.upper()} {path}`](#{_anchor(method, path)})", operation["summary"], _scope(method, path))
        for path, method, operation in operations
    ]
    parts = [_operation(path, method, operation) for path, method, operation in operations]
    named: list[str] = []
    for _, _, operation in operations:
        _gather(operation, schemas, named)
    shown = [_schema(name, schemas[name]) for name in sorted(named)]
    return page("HTTP", INTRODUCTION, table(("route", "does", "key"), listing), *parts, "## Bodies and answers", *shown)


def _anchor(method: str, path: str) -> str:
    """As GitHub makes it of the heading."""
    kept = "".join(each for each in f"{method} {path}".lower() if each.isalnum() or each in " -_")
    return kept.replace(" ", "-")


def _scope(method: str, path: str) -> str:
    return SCOPE_OF[f"{method.upper()} {path}"]


def _operation(path: str, method: str, operation: Json) -> str:
    parts = [f"## {method.upper()} {path}", f"**{operation['summary']}.** Key: `{_scope(method, path)}`."]
    parts.append(markdown(operation.get("description", "")))
    parameters = [
        (f"`{each['name']}`", each["in"], _type(each["schema"]), each.get("description", ""))
        for each in operation.get("parameters", ())
    ]
    if parameters:
        parts.append(table(("parameter", "in", "type", "meaning"), parameters))
    body = operation.get("requestBody", {}).get("content", {})
    if body:
        parts.append("Body: " + ", or ".join(_content(media, each) for media, each in body.items()) + ".")
    for status, response in operation["responses"].items():
        if "$ref" not in response:
            answers = [_content(media, each) for media, each in response.get("content", {}).items()]
            parts.append(f"Answers {status}" + (f": {', or '.join(answers)}." if answers else " without a body."))
    failing = [status for status, response in operation["responses"].items() if "$ref" in response]
    if failing:
        parts.append(f"Fails with {', '.join(failing)}.")
    return "\n\n".join(part for part in parts if part)


def _content(media: str, content: Json) -> str:
    schema = content.get("schema", {})
    shown = "" if schema.get("format") == "binary" or not schema else f" {_type(schema)}"
    return f"`{media}`{shown}"


def _type(schema: Json) -> str:
    """A schema in a few words, with links to those that have names."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for several in ("anyOf", "oneOf"):
        if several in schema:
            kinds = [_type(each) for each in schema[several] if each.get("type") != "null"]
            return " or ".join(dict.fromkeys(kinds))
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return str(schema.get("type", "any")) + _bounds(schema)


def _bounds(schema: Json) -> str:
    stated = [
        (words, schema[key])
        for key, words in (
            ("minimum", "from"), ("exclusiveMinimum", "above"), ("maximum", "to"), ("exclusiveMaximum", "below"),
            ("default", "default"),
        )
        if schema.get(key) is not None
    ]  # fmt: skip
    return f" ({', '.join(f'{words} {value}' for words, value in stated)})" if stated else ""


def _gather(part: Any, schemas: Json, found: list[str]) -> None:
    """Names of all schemas that a part leads to."""
    if isinstance(part, list):
        for each in part:
            _gather(each, schemas, found)
    elif isinstance(part, Mapping):
        for key, each in part.items():
            if key == "$ref" and each.startswith("#/components/schemas/"):
                name = each.rpartition("/")[2]
                if name not in found:
                    found.append(name)
                    _gather(schemas[name], schemas, found)
            else:
                _gather(each, schemas, found)


def _schema(name: str, schema: Json) -> str:
    required = schema.get("required", ())
    rows = [
        (f"`{field}`", _type(each), "always" if field in required else "", each.get("description", ""))
        for field, each in schema.get("properties", {}).items()
    ]
    return "\n\n".join(
        part
        for part in (
            f"### {name}",
            markdown(schema.get("description", "")),
            table(("field", "type", "there", "meaning"), rows) if rows else _type(schema),
        )
        if part
    )
