"""Command `pool-connect replay`: records that a target could not hold, once more, after it was mended."""

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
    ) -> None:
        """Write the quarantined records of a subscription into its mended table; the connector must be stopped.

        Rows of a source need none: the next pass reads them again. Ends with 3 if the table still rejects some.
        """
        from connectors.config.lint import load_config
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
