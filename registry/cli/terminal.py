"""Terminal output, exit codes and schema loading, shared by the commands of `pool-schema`.

A schema is named in one of three ways, tried in this order:

    a file                     senior-card.avsc
    a record type that ships   population, base/population
    a version of a subject     senior-card.v1-value, senior-card.v1-value@3       (with --url; @latest if not given)
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from schemas import library
from schemas.errors import InvalidError, PoolError, Reason
from schemas.terminal import escape_controls

if TYPE_CHECKING:
    from rich.console import Console

    from registry.avro.parser import ParsedSchema
    from registry.client.admin import RegistryAdminClient

__all__ = ["FAILED", "FOUND", "console", "count", "fail", "load_schema", "parse_file", "read", "write"]

FOUND = 1
FAILED = 2
_PLAIN_WIDTH = 200  # characters of a table that goes into a file or a pipe


def console(*, stderr: bool = False) -> "Console":
    """Return a console: as wide as the terminal, or wide enough for a pipe."""
    from registry.cli.safe_console import SafeConsole

    terminal = SafeConsole(stderr=stderr, highlight=False)
    # A pipe has no width of its own, and a table cut at 80 columns would lose text.
    return terminal if terminal.is_terminal else SafeConsole(stderr=stderr, highlight=False, width=_PLAIN_WIDTH)


def fail(message: str) -> NoReturn:
    """Print why the command failed, and exit with 2."""
    from rich.markup import escape

    console(stderr=True).print(f"[red]pool-schema:[/red] {escape(message)}", soft_wrap=True)
    raise typer.Exit(FAILED)


def count(number: int, what: str) -> str:
    """Return a number with its noun, in singular or plural."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def read(file: Path) -> str:
    """Read a text file, or fail."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        fail(f"{file}: {error.strerror or type(error).__name__}")
    except UnicodeDecodeError:
        fail(f"{file}: got a file that is no UTF-8; save it as UTF-8")


def write(text: str, out: Path | None, *, summary: str = "") -> None:
    """Write a result into a file, or to standard output where none is given.

    Args:
        text: the result, whole.
        out: the file.
        summary: printed on standard error after a file was written; nothing is printed if empty.
    """
    if out is None:
        sys.stdout.write(escape_controls(text))
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        fail(f"{out}: {error.strerror or type(error).__name__}")
    if summary:
        console(stderr=True).print(f"{out}: {summary}", markup=False, soft_wrap=True)


def parse_file(file: Path) -> "ParsedSchema":
    """Read and parse a schema file, or fail."""
    from registry.avro.parser import parse

    try:
        return parse(read(file))
    except PoolError as error:
        fail(f"{file}: {error.message}")


def load_schema(name: str, registry: "RegistryAdminClient | None") -> "ParsedSchema":
    """Return the schema of a name (see the module's docstring), or fail."""
    if Path(name).exists():
        return parse_file(Path(name))
    try:
        return _from_library_or_registry(name, registry)
    except PoolError as error:
        fail(f"{name}: {error.message}")


def _from_library_or_registry(name: str, registry: "RegistryAdminClient | None") -> "ParsedSchema":
    from registry.avro.parser import parse

    try:
        return parse(library.text(name))
    except InvalidError as error:
        if error.reason is not Reason.NOT_FOUND:
            raise
    if registry is None:
        raise InvalidError(
            Reason.NOT_FOUND,
            "no such file, and no record type that ships (pool-schema list); for a subject, give --url too",
        )
    subject, _, version = name.partition("@")
    document = registry.version(subject, version or "latest")
    references = tuple(registry.references_of(document))
    return parse(str(document["schema"]), references=references)
