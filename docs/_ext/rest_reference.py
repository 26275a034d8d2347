"""Puts the reference of REST into the page that asks for it, as OpenAPI has it at this moment.

A page asks by a line ``<!-- generated: REST -->``. Nothing of it is kept in a file, so that it
cannot differ from what the API serves.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

from serial_console import api, config, errors, reload

MARK = "<!-- generated: REST -->"
Json = dict[str, Any]


def setup(app: Sphinx) -> Json:
    """Register it."""
    app.connect("source-read", _fill)
    # The program may have changed where no page has: what is made from it is made anew.
    app.connect("env-get-outdated", lambda _, env, *__: env.found_docs & {"rest", "cli"})
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _fill(_: Sphinx, docname: str, source: list[str]) -> None:
    if MARK in source[0]:
        source[0] = source[0].replace(MARK, reference())
    elif docname == "rest":
        raise ExtensionError(f"docs/rest.md has lost its line {MARK}")


def reference() -> str:
    """Return the reference as Markdown: requests, objects, codes of problems."""
    described = api.build(reload.Current(config.Config())).openapi()
    lines = ["## Requests", ""]
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            lines += _request(method.upper(), path, operation)
    lines += ["## Objects", ""]
    for name, schema in described["components"]["schemas"].items():
        lines += _object(name, schema)
    return "\n".join([*lines, *_codes()])


def _request(method: str, path: str, operation: Json) -> list[str]:
    lines = [f"### {operation['summary']}", "", "```http", f"{method} {path} HTTP/1.1", "```", ""]
    if operation.get("description"):
        lines += [_paragraph(operation["description"]), ""]
    rows = []
    for one in operation.get("parameters", ()):
        meaning = one.get("description", "")
        rows.append((f"`{one['name']}`", f"in the {one['in']}", _type(one["schema"]), meaning))
    if body := operation.get("requestBody"):
        (content,) = body["content"].values()
        optional = "" if body.get("required") else "may be left out"
        rows.append(("body", "JSON", _type(content["schema"]), optional))
    for status, answer in operation["responses"].items():
        if status != "default":
            schemas = [_type(one.get("schema", {})) for one in answer.get("content", {}).values()]
            rows.append((f"answer {status}", "", ", ".join(filter(None, schemas)) or "no body", ""))
    lines += _table(("", "", "type", ""), rows)
    if operation.get("security") == []:
        lines += ["Needs no API key.", ""]
    return lines


def _object(name: str, schema: Json) -> list[str]:
    lines = [f"({_anchor(name)})=", f"### {name}", ""]
    if schema.get("description"):
        lines += [_paragraph(schema["description"]), ""]
    rows = []
    for field, one in schema.get("properties", {}).items():
        must = field in schema.get("required", ())
        default = "" if must or "default" not in one else f"`{json.dumps(one['default'])}`"
        rows.append((f"`{field}`", _type(one), default, _paragraph(one.get("description", ""))))
    return lines + _table(("field", "type", "default", ""), rows)


def _codes() -> list[str]:
    found = sorted((one.http, one.code, _paragraph(one.__doc__ or "")) for one in _below())
    rows = [(f"`{code}`", str(status), when) for status, code, when in found]
    return ["## Codes of problems", "", *_table(("code", "status", "when"), rows)]


def _below(
    error: type[errors.ConsoleError] = errors.ConsoleError,
) -> Iterator[type[errors.ConsoleError]]:
    for one in error.__subclasses__():
        yield one
        yield from _below(one)


def _type(schema: Json) -> str:
    """Say in Markdown what JSON Schema says of a value."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{_anchor(name)})"
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return " or ".join(f"`{json.dumps(one)}`" for one in schema["enum"])
    if "anyOf" in schema and "type" not in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if schema.get("type") == "array":
        return f"array of {_type(schema.get('items', {}))}"
    return str(schema.get("type", "")) + _bounds(schema)


def _bounds(schema: Json) -> str:
    least, most = (
        schema.get(long, schema.get(short))
        for long, short in (("minimum", "ge"), ("maximum", "le"))
    )
    if least is not None and most is not None:
        return f", {least:.0f} to {most:.0f}"
    if "maxLength" in schema:
        return f", at most {schema['maxLength']} characters"
    return ""


def _table(titles: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    lines += ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows]
    return [*lines, ""] if rows else []


def _paragraph(text: str) -> str:
    return " ".join(textwrap.dedent(text).replace("``", "`").split())


def _anchor(name: str) -> str:
    return f"rest-{name.lower()}"
