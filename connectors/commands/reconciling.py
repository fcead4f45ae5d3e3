"""Command `pool-connect reconcile`: does the source say what the pool has of it?"""

from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from connectors.runtime.exit_codes import ExitCode
from connectors.runtime.terminal_output import print_json, print_line

if TYPE_CHECKING:
    from connectors.config.config import ConnectorConfig
    from connectors.runtime.reconciling import Reconciled
    from connectors.runtime.renewing_client import RenewingPoolClient

__all__ = ["add_to"]

Connect = Callable[["ConnectorConfig"], "RenewingPoolClient"]


def add_to(app: typer.Typer, connect: Connect) -> None:
    """Add the command; *connect* opens the pool's client of a configuration."""

    @app.command()
    def reconcile(
        file: Annotated[Path, typer.Argument(help="the connector's configuration", metavar="FILE")],
        *,
        resource: Annotated[str, typer.Option(help="which publication, if there are several")] = "",
        differences: Annotated[
            Path | None, typer.Option(help="file to write the keys that differ to; it will hold personal data")
        ] = None,
        as_json: Annotated[bool, typer.Option("--json", help="for machines: totals, no keys")] = False,
    ) -> None:
        """Compare a source with what the pool has of it, by key range; publish nothing. Ends with 4 if they differ."""
        from connectors.config.lint import load_config
        from connectors.runtime.inspection import publication_section
        from connectors.runtime.reconciling import reconcile as compare

        config = load_config(file)
        section = publication_section(config, resource)
        with connect(config) as pool:
            found = compare(config, section, pool, clock=lambda: datetime.now(UTC), differences=differences)
        if as_json:
            print_json(asdict(found))
        else:
            _print(found, differences)
        if not found.result.equal or not found.same_lane:
            raise typer.Exit(ExitCode.PERSON)


def _print(found: "Reconciled", file: Path | None) -> None:
    result = found.result
    print_line(f"{found.resource}: {found.portion} with the pool, as of batch {found.sequence}")
    print_line(f"   {'keys':<6}{'source':>12}{'pool':>12}")
    for each in result.ranges:
        verdict = "equal" if each.equal else "DIFFERS"
        print_line(f"   {each.range + '…':<6}{each.source:>12,}{each.pool:>12,}  {verdict}")
    source, pool = sum(each.source for each in result.ranges), sum(each.pool for each in result.ranges)
    print_line(f"   {'all':<6}{source:>12,}{pool:>12,}  of {result.rows:,} rows, {result.rejected:,} are no record")
    if result.unknown:
        print_line(f"   {result.unknown:,} records are not compared: the ledger was lost, and does not know them")
    if not found.same_lane:
        print_line(
            f"   the pool's last batch is {found.pool_sequence}, this machine's {found.sequence}: while the connector "
            "runs, try again; else its next run finds out why"
        )
    if result.equal:
        print_line("   source and pool are equal")
        return
    kinds = "; ".join(f"{count:,} {kind}" for kind, count in result.differences.items())
    print_line(f"   {kinds}" + (f"; their keys are in {file}" if file else "; --differences FILE writes their keys"))
