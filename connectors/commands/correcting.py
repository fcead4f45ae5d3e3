"""Command `pool-connect correct`: have the next record of a key published with the operation `correct` (校核)."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from connectors.runtime.terminal_output import print_line
from schemas.errors import InvalidError, Reason

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def correct(
        file: Annotated[Path, typer.Argument(help="the connector's configuration", metavar="FILE")],
        key_file: Annotated[
            Path,
            typer.Option(help="file with the record key, one part a line; - reads standard input", allow_dash=True),
        ],
        *,
        resource: Annotated[str, typer.Option(help="which publication, if there are several")] = "",
    ) -> None:
        """Have the next record of a key published as a correction, by which a ticket of the pool can be answered.

        The connector must be stopped. The key is never an argument: arguments show in process lists. A pass over a
        table or a file publishes the row although it has not changed since; changes of a log are published as they
        come, so call this before you correct the row.
        """
        from contextlib import closing

        from connectors.config.lint import load_config
        from connectors.runtime import assembly
        from connectors.runtime.inspection import publication_section
        from schemas.record import key_bytes

        config = load_config(file)
        section = publication_section(config, resource)
        key = key_bytes(_parts(key_file))
        if not assembly.ledger_path(config, section.resource).exists():
            raise InvalidError(Reason.NOT_FOUND, f"nothing of {section.resource} was published from this machine yet")
        with closing(assembly.open_ledger(config, section.resource, lambda: datetime.now(UTC))) as ledger:
            if not ledger.order_correction(key):
                raise InvalidError(
                    Reason.NOT_FOUND,
                    f"no record of {section.resource} with this key was published from this machine; expected its "
                    "parts as the source has them, one a line",
                )
            waiting = len(ledger.corrections())
        print_line(f"{section.resource}: the next record of this key is published as a correction; {waiting} wait")


def _parts(file: Path) -> list[str]:
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InvalidError(
            Reason.CONFIG_INVALID, f"{file} cannot be read as UTF-8 text ({type(error).__name__}); expected the key"
        ) from error
    parts = text.splitlines()
    if not any(parts):
        raise InvalidError(Reason.CONFIG_INVALID, f"{file} is empty; expected the record key, one part a line")
    return parts
