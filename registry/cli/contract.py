"""Commands `pool-schema contract export` and `import`: schema to data contract (ODCS), and back."""

import io
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from registry.cli.command_group import CommandGroup
from registry.cli.options import Out, with_optional_registry
from registry.cli.terminal import fail, load_schema, read, write
from schemas.access import Level
from schemas.errors import PoolError

if TYPE_CHECKING:
    from registry.client.admin import RegistryAdminClient

__all__ = ["add_to"]

_MAX_NODES = 100_000  # of a contract; one of a thousand fields has some 20,000

contract = typer.Typer(
    cls=CommandGroup, help="Contracts of the Open Data Contract Standard (数据契约).", no_args_is_help=True
)


def add_to(app: typer.Typer) -> None:
    """Register the commands with the program."""
    app.add_typer(contract, name="contract")


@contract.command("export")
@with_optional_registry
def export(
    registry: "RegistryAdminClient | None",
    schema: Annotated[str, typer.Argument(metavar="SCHEMA", help="File, name that ships, or SUBJECT[@VERSION].")],
    out: Out = None,
) -> None:
    """Write a schema as a contract, ODCS v3.1.0, YAML (导出数据契约)."""
    from registry.reports.odcs import to_contract

    parsed = load_schema(schema, registry)
    subject, number = Path(schema).stem if Path(schema).exists() else schema, 1
    properties: dict[str, str] = {}
    try:
        if registry is not None and not Path(schema).exists():
            name, _, wanted = schema.partition("@")
            version = registry.version(name, wanted or "latest")
            subject, number = name, int(version["version"])
            properties = (version.get("metadata") or {}).get("properties") or {}
        document = to_contract(parsed, subject=subject, version=number, properties=properties)
    except PoolError as error:
        fail(error.message)
    write(_yaml(document), out)


@contract.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Contract, YAML or JSON.", show_default=False)],
    *,
    out: Out = None,
    metadata: Annotated[
        Path | None, typer.Option("--metadata-out", help="File to write for `register --metadata`.")
    ] = None,
    level: Annotated[
        list[str] | None,
        typer.Option("--level", help="WORD=G3: the level that a classification of the contract stands for."),
    ] = None,
) -> None:
    """Write the schema that a contract describes (由数据契约生成结构)."""
    from registry.reports.odcs import from_contract

    levels = {}
    for pair in level or ():
        word, _, name = pair.rpartition("=")
        if not word or name not in Level.__members__:
            fail(f"got --level {pair[:60]!r}; expected WORD=LEVEL, LEVEL one of {', '.join(Level.__members__)}")
        levels[word] = name
    document = _document(file)
    try:
        text, extracted = from_contract(document, levels=levels)
    except PoolError as error:
        fail(f"{file}: {error.message}")
    if metadata is not None:
        write(json.dumps({"metadata": extracted}, ensure_ascii=False, indent=2) + "\n", metadata)
    write(text + "\n", out)


def _yaml(document: dict[str, Any]) -> str:
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 120
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = io.StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()


def _document(file: Path) -> Any:
    """Return what a file of YAML says, or fail: it may come from anybody, and a few lines may stand for gigabytes."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    text = read(file)
    try:
        node = YAML(typ="safe", pure=True).compose(text)
        if _size(node, {}) > _MAX_NODES:
            fail(f"{file}: its aliases stand for more than {_MAX_NODES:,} values, or for themselves; write them out")
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        fail(f"{file}: {getattr(error, 'problem', None) or 'is no YAML'}")
    except (ValueError, RecursionError):
        fail(f"{file}: got a date that there is not, a number of thousands of digits, or hundreds of levels")


def _size(node: Any, sizes: dict[int, float]) -> float:
    """Return for how many values a node stands, those of its aliases each time; infinity where it is in itself."""
    if id(node) not in sizes:
        sizes[id(node)] = math.inf
        within = node.value if isinstance(getattr(node, "value", None), list) else ()
        parts = (part for each in within for part in (each if isinstance(each, tuple) else (each,)))
        sizes[id(node)] = 1 + sum(_size(part, sizes) for part in parts)
    return sizes[id(node)]
