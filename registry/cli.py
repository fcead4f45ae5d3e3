"""`pool-schema`: write and check schemas offline, before anybody registers them.

    pool-schema lint FILE…                   is it valid, safe, and is every field classified?
    pool-schema check OLD NEW [--level …]    may NEW follow OLD? compatibility, and no classification lowered
    pool-schema list                         the record types that ship with the pool
    pool-schema show NAME                    one of them as a table, or its text with --text

It does what the registry does on registration, with the same messages. Exit codes: 0 good, 1 something was found,
2 the command could not be carried out (no such file, unknown level).
"""

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from registry import governance
from registry.compatibility import Compatibility, Incompatibility, check
from registry.governance import Finding
from registry.parsing import ParsedSchema, parse
from schemas import library
from schemas.errors import InvalidError, PoolError

__all__ = ["app", "main"]

_FOUND = 1
_FAILED = 2
_PLAIN_WIDTH = 200  # characters of a table that goes into a file or a pipe

app = typer.Typer(
    help="Write and check schemas offline. 离线编写和检查数据结构。",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
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
) -> None:
    """Check that schemas are valid and safe, and that every field is classified (检查)."""
    out, failed, unclassified = _console(), 0, False
    for file in files:
        parsed, findings = _linted(file, ungoverned=ungoverned)
        if findings:
            failed += 1
            unclassified = unclassified or parsed is not None
            out.print(f"[red]✗[/red] {escape(str(file))}: {_count(len(findings), 'finding')}")
            for finding in findings:
                out.print(f"  {escape(finding)}", soft_wrap=True)
        elif parsed is not None:
            out.print(f"[green]✓[/green] {escape(str(file))}: {escape(_summary(parsed))}", soft_wrap=True)
    if unclassified:
        out.print(f"A field needs {escape(governance.EXPECTED)}.", soft_wrap=True)
    if failed:
        raise typer.Exit(_FOUND)


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
    try:
        wanted = Compatibility.parse(level)
    except InvalidError as error:
        _fail(error.message)
    before, after = (_parsed(file) for file in (old, new))
    labels = _labels(before) | _labels(after)
    fields, _ = governance.examine(after.json)
    earlier, _ = governance.examine(before.json)
    found = check(after.text, [(1, before.text)], wanted, strict=strict)
    findings = [_against(old, item, labels) for item in found]
    findings += [f"classification lowered: {_labelled(item, labels)}" for item in governance.lowered(fields, earlier)]
    out = _console()
    if findings:
        out.print(
            f"[red]✗[/red] {escape(str(new))} may not follow {escape(str(old))} under {wanted}: "
            f"{_count(len(findings), 'finding')}",
            soft_wrap=True,
        )
        for finding in findings:
            out.print(f"  {escape(finding)}", soft_wrap=True)
        raise typer.Exit(_FOUND)
    out.print(f"[green]✓[/green] {escape(str(new))} may follow {escape(str(old))} under {wanted}", soft_wrap=True)


@app.command(name="list")
def list_() -> None:
    """List the record types that ship with the pool (列出内置数据结构)."""
    table = Table(box=None, pad_edge=False)
    for head in ("NAME", "中文", "KEY", "FIELDS", "LEVEL"):
        table.add_column(head, overflow="fold")
    for name in library.names():
        parsed = parse(library.text(name))
        fields, _ = governance.examine(parsed.json)
        level = governance.highest_level(fields).name if fields else ""
        zh = str(parsed.attributes.get("zh", ""))
        table.add_row(name, escape(zh), ", ".join(parsed.key), str(len(parsed.fields)), level)
    _console().print(table)


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Such as population.", show_default=False)],
    *,
    text: Annotated[bool, typer.Option("--text", help="Its .avsc text, to save and change.")] = False,
) -> None:
    """Show a record type that ships with the pool (显示内置数据结构)."""
    try:
        found = library.text(name)
    except InvalidError as error:
        _fail(error.message)
    if text:
        sys.stdout.write(found)
        return
    parsed, out = parse(found), _console()
    out.print(f"[bold]{escape(_summary(parsed))}[/bold]", soft_wrap=True)
    labelled = {field.path: field for field in governance.examine(parsed.json)[0]}
    labels = _labels(parsed)
    table = Table(box=None, pad_edge=False)
    for head in ("FIELD", "中文", "TYPE", "LEVEL", "PERSONAL", "SENSITIVE", "MASK"):
        table.add_column(head, overflow="fold")
    for field in parsed.fields:
        key = " *" if field.name in parsed.key else ""
        known = labelled.get(field.name)
        marks = (known.level.name, known.personal, known.sensitive, known.mask) if known else ("", "", "", "")
        table.add_row(f"{field.name}{key}", escape(labels.get(field.name, "")), _type(field.type), *marks)
    out.print(table)
    out.print("* part of the key; ? may be null")


def _linted(file: Path, *, ungoverned: bool) -> tuple[ParsedSchema | None, list[str]]:
    try:
        parsed = parse(_read(file))
    except PoolError as error:
        return None, [error.message]
    if ungoverned:
        return parsed, []
    labels = _labels(parsed)
    return parsed, [_labelled(finding, labels) for finding in governance.examine(parsed.json)[1]]


def _labels(parsed: ParsedSchema) -> dict[str, str]:
    """Give the Chinese label of each top-level field that has one, classified or not."""
    return {field.name: str(field.attributes["zh"]) for field in parsed.fields if "zh" in field.attributes}


def _labelled(finding: Finding, labels: dict[str, str]) -> str:
    zh = labels.get(finding.path, "")
    return f"{finding.at} {finding.path}{f' {zh}' if zh else ''}: {finding.message}".replace("  ", " ")


def _against(old: Path, item: Incompatibility, labels: dict[str, str]) -> str:
    """Name the field by its label too, and the old schema as its author knows it: by its file."""
    zh = labels.get(item.field, "")
    text = str(item).replace(f"({item.field})", f"({item.field} {zh})") if zh else str(item)
    return text.replace("version 1", old.name)


def _parsed(file: Path) -> ParsedSchema:
    try:
        return parse(_read(file))
    except PoolError as error:
        _fail(f"{file}: {error.message}")


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        _fail(f"{file}: {error.strerror or type(error).__name__}")
    except UnicodeDecodeError:
        _fail(f"{file}: got a file that is no UTF-8; save it as UTF-8")


def _summary(parsed: ParsedSchema) -> str:
    if not parsed.fullname:
        return "valid; no record"
    zh = parsed.attributes.get("zh")
    fields, _ = governance.examine(parsed.json)
    parts = [
        f"{parsed.fullname}{f' {zh}' if isinstance(zh, str) else ''}",
        _count(len(parsed.fields), "field"),
        f"key {', '.join(parsed.key)}" if parsed.key else "no key",
    ]
    if fields:
        parts.append(f"highest level {governance.highest_level(fields).name}")
        direct = sum(field.personal == "D" for field in fields)
        parts.append(_count(direct, "direct identifier"))
    return ", ".join(parts)


def _type(node: object) -> str:
    if isinstance(node, list):
        inner = [branch for branch in node if branch != "null"]
        words = " | ".join(_type(branch) for branch in inner)
        return f"{words}?" if len(inner) < len(node) else words
    if isinstance(node, dict):
        logical = node.get("logicalType")
        if logical == "decimal":
            return f"decimal({node['precision']},{node.get('scale', 0)})"
        if node["type"] == "enum":
            return f"enum of {len(node['symbols'])}"
        return str(logical or node["type"])
    return str(node)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _console(*, stderr: bool = False) -> Console:
    console = Console(stderr=stderr, highlight=False)
    # A pipe has no width of its own, and a table cut at 80 columns would lose what it says.
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, width=_PLAIN_WIDTH)


def _fail(message: str) -> NoReturn:
    _console(stderr=True).print(f"[red]pool-schema:[/red] {escape(message)}", soft_wrap=True)
    raise typer.Exit(_FAILED)
