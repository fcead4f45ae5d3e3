"""Commands `pool-schema export` and `import`: move a registry, as records of a `_schemas` topic or over REST.

    pool-schema export --url https://old:8081 --out schemas.jsonl
    pool-schema import schemas.jsonl --url https://new:8081
    pool-schema import --from http://other:8081 --url https://new:8081

Ids and versions are kept. Import reads what the console consumer of Kafka prints of a `_schemas` topic as well
(`--property print.key=true`). It prints what the receiving registry refuses, and ends with 1 if it refused anything.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from registry.cli.options import Out, required, with_optional_registry, with_registry
from registry.cli.terminal import FOUND, console, count, fail, read, write
from schemas.errors import PoolError

if TYPE_CHECKING:
    from registry.client.admin import RegistryAdminClient
    from registry.schemas_topic.records import Snapshot

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Register the commands with the program."""
    app.command("export")(export)
    app.command("import")(import_)


@with_registry
def export(
    registry: "RegistryAdminClient",
    out: Out = None,
    prefix: Annotated[str, typer.Option("--prefix", help="Only subjects with this prefix.")] = "",
) -> None:
    """Write a registry's content as records of a _schemas topic, one JSON line each (导出)."""
    from registry.schemas_topic.records import write_line
    from registry.schemas_topic.transfer import export_snapshot, records_of

    try:
        snapshot = export_snapshot(registry, prefix=prefix)
        lines = "".join(map(write_line, records_of(snapshot)))
    except PoolError as error:
        fail(error.message)
    write(lines, out, summary=count(len(snapshot.versions), "version"))


@with_optional_registry
def import_(
    registry: "RegistryAdminClient | None",
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Records, one a line.", show_default=False)
    ] = None,
    *,
    source: Annotated[
        str | None, typer.Option("--from", help="Address of another registry, instead of a file.")
    ] = None,
    source_token: Annotated[
        Path | None, typer.Option("--from-token-file", help="File with a bearer token for the other registry.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and check, write nothing.")] = False,
) -> None:
    """Import versions into a registry with the ids that they have elsewhere (导入)."""
    from rich.markup import escape

    from registry.schemas_topic.transfer import import_snapshot

    if (file is None) is (source is None):
        fail("got both a file and --from, or neither; expected one of the two")
    out = console()
    try:
        snapshot = _read(file, source, source_token)
        if dry_run:
            contradictions = snapshot.contradictions()
            for text in contradictions:
                out.print(f"  {escape(text)}", soft_wrap=True)
            versions = len(snapshot.in_dependency_order())
            out.print(f"{count(versions, 'version')}, {count(len(contradictions), 'contradiction')}")
            raise typer.Exit(FOUND if contradictions else 0)
        report = import_snapshot(required(registry), snapshot)
    except PoolError as error:
        fail(error.message)
    for text in report.refused:
        out.print(f"[red]✗[/red] {escape(text)}", soft_wrap=True)
    reserved = f", {count(report.reserved, 'id')} without a version among them" if report.reserved else ""
    out.print(f"{count(report.versions, 'version')} there{reserved}; {len(report.refused)} refused")
    if report.refused:
        raise typer.Exit(FOUND)


def _read(file: Path | None, source: str | None, token: Path | None) -> "Snapshot":
    from registry.client.admin import RegistryAdminClient
    from registry.schemas_topic.records import fold, read_lines
    from registry.schemas_topic.transfer import export_snapshot

    if file is not None:
        return fold(read_lines(read(file).split("\n")))
    return export_snapshot(RegistryAdminClient(source or "", token=read(token).strip() if token is not None else None))
