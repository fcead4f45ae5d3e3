"""Command `pool-connect replay`: records that a mended target could not hold before, and mended rows of a source."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from connectors.runtime.exit_codes import ExitCode
from connectors.runtime.terminal_output import print_line

if TYPE_CHECKING:
    from connectors.config.config import ConnectorConfig
    from connectors.runtime.renewing_client import RenewingPoolClient

__all__ = ["add_to"]

Connect = Callable[["ConnectorConfig"], "RenewingPoolClient"]


def add_to(app: typer.Typer, connect: Connect) -> None:
    """Add the command; *connect* opens the pool's client of a configuration."""

    @app.command()
    def replay(
        file: Annotated[Path, typer.Argument(help="the connector's configuration", metavar="FILE")],
        *,
        grant: Annotated[str, typer.Option(help="which subscription, if there are several")] = "",
        rows: Annotated[
            Path | None, typer.Option(help="publish the mended rows of this file of `quarantine export --rows`")
        ] = None,
        resource: Annotated[str, typer.Option(help="with --rows: which publication, if there are several")] = "",
    ) -> None:
        """Write the quarantined records of a subscription into its mended table, or publish mended rows of a source.

        The connector must be stopped. Rows that their source states again need none: the next pass reads them. Ends
        with 3 if some still do not fit.
        """
        from connectors.config.lint import load_config

        if rows is not None:
            _replay_rows(file, resource, rows, connect)
            return
        from connectors.runtime.inspection import subscription_section
        from connectors.runtime.reconciliation.replay import replay_subscription

        config = load_config(file)
        section = subscription_section(config, grant)
        with connect(config) as pool:
            done = replay_subscription(config, section, pool, clock=lambda: datetime.now(UTC))
        print_line(
            f"{section.grant}: {done.tried:,} records tried = {done.written:,} written + {done.rejected:,} rejected"
            + (f"; {done.skipped:,} are of an earlier view, or older, and stay" if done.skipped else "")
        )
        if done.rejected:
            raise typer.Exit(ExitCode.QUARANTINE)


def _replay_rows(file: Path, resource: str, rows: Path, connect: Connect) -> None:
    from connectors.config.lint import load_config
    from connectors.runtime.exports.mending import replay_publication
    from connectors.runtime.inspection import publication_section

    config = load_config(file)
    section = publication_section(config, resource)
    with connect(config) as pool:
        done = replay_publication(config, section, rows, pool, sign=pool.sign, clock=lambda: datetime.now(UTC))
    print_line(
        f"{section.resource}: {done.published:,} published, {done.unchanged:,} unchanged, "
        f"{done.overtaken:,} overtaken, {done.closed:,} of entries that are closed, {len(done.rejected):,} rejected"
    )
    if done.overtaken:
        print_line("   of overtaken rows the pool has a later record or a void; their entries stay open")
    for each in done.rejected:
        print_line(f"   entry {each.line}  {each.code.value}  {each.field or 'the whole row'}: {each.message}")
    if done.rejected:
        raise typer.Exit(ExitCode.QUARANTINE)
