"""`pool-schema contract export | import`: a schema as a contract of the Open Data Contract Standard, and back."""

import io
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from registry.cli.options import Out, perhaps_at_registry
from registry.cli.terminal import fail, read, schema_named, write
from registry.client.admin import RegistryAdminClient
from registry.reports.odcs import from_contract, to_contract
from schemas.access import Level
from schemas.errors import PoolError

__all__ = ["add_to"]

contract = typer.Typer(help="Contracts of the Open Data Contract Standard (数据契约).", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(contract, name="contract")


@contract.command("export")
@perhaps_at_registry
def export(
    registry: RegistryAdminClient | None,
    schema: Annotated[str, typer.Argument(metavar="SCHEMA", help="File, name that ships, or SUBJECT[@VERSION].")],
    out: Out = None,
) -> None:
    """Write a schema as a contract, ODCS v3.1.0, YAML (导出数据契约)."""
    parsed = schema_named(schema, registry)
    subject, number = Path(schema).stem if Path(schema).exists() else schema, 1
    properties: dict[str, str] = {}
    try:
        if registry is not None and not Path(schema).exists():
            name, _, wanted = schema.partition("@")
            found = registry.version(name, wanted or "latest")
            subject, number = name, int(found["version"])
            properties = (found.get("metadata") or {}).get("properties") or {}
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
        Path | None, typer.Option("--metadata-out", help="File for what `register --metadata` takes.")
    ] = None,
    level: Annotated[
        list[str] | None, typer.Option("--level", help="WORD=G3: which level a word of its classification means.")
    ] = None,
) -> None:
    """Write the schema of a contract (由数据契约生成结构)."""
    levels = {}
    for pair in level or ():
        word, _, name = pair.rpartition("=")
        if not word or name not in Level.__members__:
            fail(f"got --level {pair[:60]!r}; expected WORD=LEVEL, LEVEL one of {', '.join(Level.__members__)}")
        levels[word] = name
    try:
        text, found = from_contract(YAML(typ="safe").load(read(file)), levels=levels)
    except YAMLError as error:
        fail(f"{file}: {getattr(error, 'problem', None) or 'is no YAML'}")
    except PoolError as error:
        fail(f"{file}: {error.message}")
    if metadata is not None:
        write(json.dumps({"metadata": found}, ensure_ascii=False, indent=2) + "\n", metadata)
    write(text + "\n", out)


def _yaml(document: dict[str, Any]) -> str:
    yaml = YAML()
    yaml.width = 120
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = io.StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()
