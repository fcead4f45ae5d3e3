"""Program `pool-schema`: write, check, compare, document and register schemas.

    pool-schema lint FILE…                   is it valid, safe, and is every field classified?
    pool-schema check OLD NEW [--level …]    may NEW follow OLD? compatibility, and no classification lowered
    pool-schema diff OLD NEW                 what changed, for readers and for grants       (registry.cli.change)
    pool-schema register SUBJECT FILE        register it with a registry
    pool-schema find --personal D            which fields hold direct identifiers, or carry a tag
    pool-schema approval ask|list|decide     have a lowered classification approved
    pool-schema docs SCHEMA…                 a data dictionary, HTML or Markdown            (registry.cli.docs)
    pool-schema contract export|import       the Open Data Contract Standard                (registry.cli.contract)
    pool-schema export, import               ids and versions kept, as a _schemas topic     (registry.cli.transfer)
    pool-schema list                         the record types that ship with the pool
    pool-schema show NAME                    one of them as a table, or its text with --text

`lint` and `check` apply the registry's own rules offline, with the same messages. Exit codes: 0 nothing found,
1 something found, 2 the command failed (no such file, no answer, unknown level).
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from registry.avro.compatibility_level import Compatibility
from registry.cli import change, contract, docs, transfer
from registry.cli.command_group import CommandGroup
from registry.cli.terminal import FOUND, console, count, fail, parse_file, read, write
from schemas import library
from schemas.access import Level, MaskRule
from schemas.errors import InvalidError, PoolError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from registry.avro.compatibility import Incompatibility
    from registry.avro.parser import ParsedSchema
    from registry.governance.classification import ClassificationFinding
    from registry.governance.element_rules import ElementDefinition

__all__ = ["app", "main"]

app = typer.Typer(
    help="Write, check, compare, document and register schemas. 编写、检查、比较、登记数据结构。",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    cls=CommandGroup,
    rich_markup_mode=None,  # a panel round each list would cost a fifth of a second
)


def main() -> None:
    """Run the program."""
    app()


@app.command()
def lint(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Schema files (.avsc).", show_default=False)],
    *,
    ungoverned: Annotated[
        bool, typer.Option("--ungoverned", help="Do not ask for a classification of every field.")
    ] = False,
    elements: Annotated[
        Path | None,
        typer.Option(help="Dictionary of data elements, as `pool element list --json` prints it: fields must fit it."),
    ] = None,
) -> None:
    """Check that schemas are valid and safe, and that every field is classified (检查) and fits its data element."""
    from rich.markup import escape

    from registry.governance import classification

    dictionary = None if elements is None else _dictionary(elements)
    out, failed, unclassified = console(), 0, False
    for file in files:
        parsed, findings = _linted(file, ungoverned=ungoverned, dictionary=dictionary)
        if findings:
            failed += 1
            unclassified = unclassified or parsed is not None
            out.print(f"[red]✗[/red] {escape(str(file))}: {count(len(findings), 'finding')}")
            for finding in findings:
                out.print(f"  {escape(finding)}", soft_wrap=True)
        elif parsed is not None:
            out.print(f"[green]✓[/green] {escape(str(file))}: {escape(_summary(parsed))}", soft_wrap=True)
    if unclassified:
        out.print(f"A field needs {escape(classification.EXPECTED)}.", soft_wrap=True)
    if failed:
        raise typer.Exit(FOUND)


@app.command(name="check")
def check_(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="The schema as it is registered.", show_default=False)],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="The schema that is to follow it.", show_default=False)],
    level: Annotated[
        str, typer.Option("--level", "-l", help=f"One of {', '.join(Compatibility)}; any case.")
    ] = Compatibility.BACKWARD.value,
    *,
    strict: Annotated[
        bool, typer.Option(help="Also refuse logical types that change their meaning: scale, precision, time unit.")
    ] = True,
) -> None:
    """Check that one schema may follow another (检查兼容性)."""
    from rich.markup import escape

    from registry.avro.compatibility import find_incompatibilities
    from registry.governance import classification
    from registry.governance.tags import dropped_tags, tagged_entities

    try:
        wanted = Compatibility.parse(level)
    except InvalidError as error:
        fail(error.message)
    before, after = (parse_file(file) for file in (old, new))
    labels = _labels(before) | _labels(after)
    fields, _ = classification.read_classification(after.json)
    earlier, _ = classification.read_classification(before.json)
    found = find_incompatibilities(after.text, [(1, before.text)], wanted, strict=strict)
    findings = [_against(old, item, labels) for item in found]
    findings += [
        f"classification lowered: {_labelled(item, labels)}" for item in classification.find_lowered(fields, earlier)
    ]
    dropped = dropped_tags(tagged_entities(after, None), [(1, tagged_entities(before, None))])
    findings += [f"classification lowered: {item.replace('version 1', old.name)}" for item in dropped]
    out = console()
    if findings:
        out.print(
            f"[red]✗[/red] {escape(str(new))} may not follow {escape(str(old))} under {wanted}: "
            f"{count(len(findings), 'finding')}",
            soft_wrap=True,
        )
        for finding in findings:
            out.print(f"  {escape(finding)}", soft_wrap=True)
        raise typer.Exit(FOUND)
    out.print(f"[green]✓[/green] {escape(str(new))} may follow {escape(str(old))} under {wanted}", soft_wrap=True)


@app.command(name="list")
def list_() -> None:
    """List the record types that ship with the pool (列出内置数据结构)."""
    from rich.markup import escape
    from rich.table import Table

    from registry.avro.parser import parse
    from registry.governance import classification

    table = Table(box=None, pad_edge=False)
    for head in ("NAME", "中文", "KEY", "FIELDS", "LEVEL"):
        table.add_column(head, overflow="fold")
    for name in library.names():
        parsed = parse(library.text(name))
        fields, _ = classification.read_classification(parsed.json)
        level = classification.highest_level(fields).name if fields else ""
        zh = str(parsed.attributes.get("zh", ""))
        table.add_row(name, escape(zh), ", ".join(parsed.key), str(len(parsed.fields)), level)
    console().print(table)


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Such as population.", show_default=False)],
    *,
    text: Annotated[bool, typer.Option("--text", help="Its .avsc text, to save and change.")] = False,
) -> None:
    """Show a record type that ships with the pool (显示内置数据结构)."""
    from rich.markup import escape
    from rich.table import Table

    from registry.avro.parser import parse
    from registry.avro.type_names import type_name
    from registry.governance import classification

    try:
        found = library.text(name)
    except InvalidError as error:
        fail(error.message)
    if text:
        write(found, None)
        return
    parsed, out = parse(found), console()
    out.print(f"[bold]{escape(_summary(parsed))}[/bold]", soft_wrap=True)
    labelled = {field.path: field for field in classification.read_classification(parsed.json)[0]}
    labels = _labels(parsed)
    table = Table(box=None, pad_edge=False)
    for head in ("FIELD", "中文", "TYPE", "LEVEL", "PERSONAL", "SENSITIVE", "MASK"):
        table.add_column(head, overflow="fold")
    for field in parsed.fields:
        key = " *" if field.name in parsed.key else ""
        known = labelled.get(field.name)
        marks = (known.level.name, known.personal, known.sensitive, known.mask) if known else ("", "", "", "")
        table.add_row(f"{field.name}{key}", escape(labels.get(field.name, "")), type_name(field.type), *marks)
    out.print(table)
    out.print("* part of the key; ? may be null")


def _dictionary(file: Path) -> "Mapping[str, ElementDefinition]":
    """Return the data elements of a file, by code; what the pool only named (a damaged row) is left out."""
    from dataclasses import fields

    from registry.catalogue.elements import DataElement

    members = {one.name for one in fields(DataElement)}
    found = {}
    try:
        for row in json.loads(read(file)):
            if "type" in row:
                values = {name: value for name, value in row.items() if name in members}
                element = DataElement(**{**values, "level": Level[values["level"]], "mask": MaskRule(values["mask"])})
                found[element.code] = element.definition
    except PoolError as error:
        fail(f"{file}: {error.message}")
    except (ValueError, KeyError, TypeError):
        fail(f"{file} is no dictionary of data elements; expected the output of `pool element list --json`")
    return found


def _linted(
    file: Path, *, ungoverned: bool, dictionary: "Mapping[str, ElementDefinition] | None" = None
) -> "tuple[ParsedSchema | None, list[str]]":
    from registry.avro.fields import resolved_json
    from registry.avro.parser import parse
    from registry.avro.resource_rules import find_unpublishable, require_numbers_in_range
    from registry.governance import classification
    from registry.governance.element_rules import ElementDefinition as Definition
    from registry.governance.element_rules import find_unfit
    from registry.governance.subject_references import find_unnamed

    try:
        parsed = parse(read(file))
        require_numbers_in_range(parsed)
    except PoolError as error:
        return None, [error.message]
    if ungoverned:
        return parsed, []
    labels = _labels(parsed)
    findings = [_labelled(finding, labels) for finding in classification.read_classification(parsed.json)[1]]
    if parsed.fullname:
        # Without a dictionary any code may be one; what is no code is refused.
        find = (lambda code: Definition(code=code, type="general")) if dictionary is None else dictionary.get
        resolved = resolved_json(parsed)
        findings += [_labelled(finding, labels) for finding in find_unfit(resolved, find)]
        findings += [_labelled(finding, labels) for finding in find_unnamed(resolved)]
    return parsed, [*findings, *(f"{path}: {message}" for path, message in find_unpublishable(parsed))]


def _labels(parsed: "ParsedSchema") -> dict[str, str]:
    """Return the Chinese label of each top-level field that has one, classified or not."""
    return {field.name: str(field.attributes["zh"]) for field in parsed.fields if "zh" in field.attributes}


def _labelled(finding: "ClassificationFinding", labels: dict[str, str]) -> str:
    zh = labels.get(finding.path, "")
    return f"{finding.at} {finding.path}{f' {zh}' if zh else ''}: {finding.message}".replace("  ", " ")


def _against(old: Path, item: "Incompatibility", labels: dict[str, str]) -> str:
    """Name the field by its label too, and the old schema as its author knows it: by its file."""
    zh = labels.get(item.field, "")
    text = str(item).replace(f"({item.field})", f"({item.field} {zh})") if zh else str(item)
    return text.replace("version 1", old.name)


def _summary(parsed: "ParsedSchema") -> str:
    from registry.governance import classification

    if not parsed.fullname:
        return "valid; no record"
    zh = parsed.attributes.get("zh")
    fields, _ = classification.read_classification(parsed.json)
    parts = [
        f"{parsed.fullname}{f' {zh}' if isinstance(zh, str) else ''}",
        count(len(parsed.fields), "field"),
        f"key {', '.join(parsed.key)}" if parsed.key else "no key",
    ]
    if fields:
        parts.append(f"highest level {classification.highest_level(fields).name}")
        direct = sum(field.personal == "D" for field in fields)
        parts.append(count(direct, "direct identifier"))
    return ", ".join(parts)


for _more in (change, docs, contract, transfer):
    _more.add_to(app)
