"""Commands `pool-connect quarantine list`, `show` and `export`: rows that were rejected, with why."""

import os
from pathlib import Path
from typing import Annotated

import typer

from connectors.runtime.terminal_output import print_line
from schemas.errors import ConflictError, InvalidError, Reason

__all__ = ["add_to"]

File = Annotated[Path, typer.Argument(help="the connector's configuration", metavar="FILE")]
Everything = Annotated[bool, typer.Option("--all", help="closed ones too")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="Rows that were quarantined.")
    group.command("list")(quarantine_list)
    group.command("show")(quarantine_show)
    group.command("export")(quarantine_export)
    app.add_typer(group, name="quarantine")


def quarantine_list(file: File, *, everything: Everything = False) -> None:
    """List the quarantined rows, without their values."""
    from connectors.config.lint import load_config
    from connectors.runtime import status

    for stream, each in status.quarantined(load_config(file), everything=everything):
        field = f"  {each.field}" if each.field else ""
        print_line(f"{each.id:>6}  {stream}  {each.portion}:{each.line}  {each.code}{field}  {each.message}")


def quarantine_show(
    file: File,
    number: Annotated[int, typer.Argument(help="of the row, as `list` shows it", metavar="ID")],
    *,
    stream: Annotated[str, typer.Option(help="resource or grant, where several have this number")] = "",
    original: Annotated[bool, typer.Option("--original", help="the row itself too: it holds personal data")] = False,
) -> None:
    """Show one quarantined row: where it is, why it was rejected, since when; its values with --original alone."""
    from connectors.config.lint import load_config
    from connectors.runtime import status
    from connectors.state.quarantine import original_text

    found = [
        (name, each)
        for name, each in status.quarantined(load_config(file), everything=True)
        if each.id == number and stream in ("", name)
    ]
    if not found:
        raise InvalidError(Reason.NOT_FOUND, f"no quarantined row has the number {number}; see `quarantine list --all`")
    if len(found) > 1:
        names = ", ".join(name for name, _ in found)
        raise InvalidError(Reason.CONFIG_INVALID, f"several streams have a row {number}; name one by --stream: {names}")
    name, each = found[0]
    print_line(f"{name}  {each.portion}:{each.line}   {'open' if each.open else 'closed'}")
    print_line(f"   {each.code}  {each.field or 'the whole row'}: {each.message}")
    print_line(f"   read {each.attempts:,} times, from {each.first_seen} to {each.last_seen}")
    if original:
        for line in original_text(each.original).splitlines():
            print_line(f"   | {line}")
    else:
        print_line(f"   {len(each.original):,} bytes; --original shows them")


def quarantine_export(
    file: File,
    output: Annotated[
        Path | None, typer.Option("--csv", help="file to write, not there yet; it will hold the rows themselves")
    ] = None,
    *,
    rows: Annotated[
        Path | None, typer.Option("--rows", help="or the open rows of a publication, to be mended for `replay --rows`")
    ] = None,
    resource: Annotated[str, typer.Option(help="with --rows: which publication, if there are several")] = "",
    everything: Everything = False,
) -> None:
    """Write the quarantined rows, with their original text, as CSV; or, as JSON lines by column, to be mended."""
    from connectors.config.lint import load_config
    from connectors.runtime import status
    from connectors.state.quarantine import as_csv

    if (output is None) is (rows is None):
        raise InvalidError(Reason.CONFIG_INVALID, "expected one of --csv FILE and --rows FILE")
    if rows is not None:
        _export_rows(file, resource, rows)
        return
    assert output is not None  # noqa: S101 - one of the two, as was checked
    try:
        # A new file, of this user alone from its first byte: no other one is changed, and no link is followed.
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise ConflictError(Reason.CONFIG_INVALID, f"{output} is there already; name another file") from error
    except OSError as error:
        raise InvalidError(Reason.CONFIG_INVALID, f"{output} cannot be written ({type(error).__name__})") from error
    with os.fdopen(descriptor, "wb") as target:
        for line in as_csv(each for _, each in status.quarantined(load_config(file), everything=everything)):
            target.write(line)
    print_line(f"written to {output}, readable by this user only; it holds the rows' own values")


def _export_rows(file: Path, resource: str, rows: Path) -> None:
    from connectors.config.lint import load_config
    from connectors.runtime.exports.mending import export_rows
    from connectors.runtime.inspection import publication_section

    config = load_config(file)
    section = publication_section(config, resource)
    written = export_rows(config, section, rows)
    print_line(
        f"{written:,} rows written to {rows}, readable by this user only; it holds the rows' own values. Mend what is "
        f"under `row`, stop the connector, and publish them: pool-connect replay {file} --rows {rows}"
    )
