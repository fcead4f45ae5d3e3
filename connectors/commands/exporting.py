"""Command `pool-connect export`: what a grant delivers now, as one file."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from connectors.runtime.exit_codes import ExitCode
from connectors.runtime.terminal_output import ProgressReporter, print_json, print_line

if TYPE_CHECKING:
    from connectors.runtime.renewing_client import RenewingPoolClient

__all__ = ["add_to"]

Connect = Callable[[Path, str], "RenewingPoolClient"]


def add_to(app: typer.Typer, connect: Connect) -> None:
    """Add the command; *connect* opens the pool's client of an identity and a gateway's address."""

    @app.command("export")
    def export(
        output: Annotated[
            Path, typer.Argument(help="file to write, not there yet: .csv, .jsonl or .parquet", metavar="OUTPUT")
        ],
        identity: Annotated[Path, typer.Option(help="folder that `enrol` made")],
        grant: Annotated[str, typer.Option(help="id of the grant")],
        purpose: Annotated[str, typer.Option(help="as the grant states it")],
        *,
        case: Annotated[str, typer.Option(help="as the grant states it, where it has one")] = "",
        gateway: Annotated[str, typer.Option(help="host:port, if another one than enrolled is to be called")] = "",
        encoding: Annotated[str, typer.Option(help="of CSV: utf-8, utf-8-sig or gb18030")] = "utf-8",
        neutralise_formulas: Annotated[
            bool, typer.Option("--neutralise-formulas", help="CSV: an apostrophe before what a spreadsheet would run")
        ] = False,
        as_json: Annotated[bool, typer.Option("--json", help="print the manifest, for machines")] = False,
    ) -> None:
        """Write everything that a grant delivers now into one file, with a manifest; no configuration is needed.

        It is drawn from the beginning: releases with their entries, out of the grant's quota. Nothing is acknowledged.
        Ends with 3 if the form has no value for some records.
        """
        from connectors.runtime.exports.state_file import TextStyle, export_state
        from connectors.state.ledger import RunReport
        from connectors.subscribing.subscriber import SubscriptionConfig
        from schemas.errors import InvalidError, Reason

        if encoding not in ("utf-8", "utf-8-sig", "gb18030"):
            raise InvalidError(Reason.CONFIG_INVALID, f"got {encoding!r}; expected utf-8, utf-8-sig or gb18030")
        with connect(identity, gateway) as pool, closing(ProgressReporter()) as reporter:
            written = export_state(
                pool,
                SubscriptionConfig(grant=grant, purpose=purpose, case=case, batch_rows=10_000),
                output,
                style=TextStyle(encoding=encoding, neutralise_formulas=neutralise_formulas),
                clock=lambda: datetime.now(UTC),
                progress=lambda rows: reporter.progress(RunReport(id=0, portion=grant, read=rows, outcome="drawing")),
            )
        if as_json:
            print_json(asdict(written))
        else:
            print_line(
                f"{output}: {written.records:,} records of {written.topic}, {written.bytes:,} bytes, readable by this "
                f"user only; {written.releases:,} releases, the last entry {written.last_entry or 'none'}"
            )
            for what, count in written.set_aside.items():
                print_line(f"   {count:,} records are not in it, of which the form cannot hold {what}")
        if written.set_aside:
            raise typer.Exit(ExitCode.QUARANTINE)
