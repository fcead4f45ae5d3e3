"""Mending of quarantined rows: the open rows of a publication to a file, and a mended file into the pool."""

import json
import os
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from pathlib import Path

from connectors.config.config import ConnectorConfig
from connectors.config.publication_models import PublishConfig
from connectors.port import Pool
from connectors.publishing.mended_rows import MendedReport, replay_rows
from connectors.publishing.publication import Signer
from connectors.publishing.publisher import PORTION_COLUMNS
from connectors.runtime import assembly
from connectors.runtime.exports.quarantined_rows import parse_rows, render_rows
from connectors.state.quarantine import read_entries
from connectors.state.read_only import open_read_only
from schemas.errors import ConflictError, InvalidError, Reason

__all__ = ["export_rows", "replay_publication"]


def export_rows(config: ConnectorConfig, section: PublishConfig, output: Path) -> int:
    """Write the open rows of a publication to a new file of this user alone; return their number.

    Raises:
        ConflictError: CONFIG_INVALID, the file is there.
        InvalidError: NOT_FOUND, nothing was published yet; CONFIG_INVALID, the file cannot be written.
    """
    ledger = assembly.ledger_path(config, section.resource)
    if not ledger.exists():
        raise InvalidError(Reason.NOT_FOUND, f"nothing of {section.resource} was published from this machine yet")
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError as error:
        raise ConflictError(Reason.CONFIG_INVALID, f"{output} is there already; name another file") from error
    except OSError as error:
        raise InvalidError(Reason.CONFIG_INVALID, f"{output} cannot be written ({type(error).__name__})") from error
    with (
        os.fdopen(descriptor, "wb") as target,
        closing(open_read_only(ledger)) as sql,
    ):
        stored = sql.execute("SELECT value FROM meta WHERE name = ?", (PORTION_COLUMNS,)).fetchone()
        entries = list(read_entries(sql))
        for line in render_rows(entries, section, json.loads(stored[0]) if stored else {}):
            target.write(line)
    return len(entries)


def replay_publication(
    config: ConnectorConfig,
    section: PublishConfig,
    file: Path,
    pool: Pool,
    *,
    sign: Signer,
    clock: Callable[[], datetime],
    notify: Callable[[str], None] = lambda _: None,
) -> MendedReport:
    """Publish the rows of a mended file.

    Raises:
        InvalidError: CONFIG_INVALID, the file is not of the form; NOT_FOUND, nothing was published yet.
        UnavailableError: LEDGER_IN_USE, the connector runs.
        PoolError: what publishing raises.
    """
    if section.replaces == "same_name":
        raise InvalidError(
            Reason.CONFIG_INVALID,
            f"{section.resource} is published file by file (`replaces: same_name`): drop the mended file again",
        )
    rows = parse_rows(file)
    if not assembly.ledger_path(config, section.resource).exists():
        raise InvalidError(Reason.NOT_FOUND, f"nothing of {section.resource} was published from this machine yet")
    with closing(assembly.open_ledger(config, section.resource, clock)) as ledger:
        return replay_rows(
            assembly.publication(section),
            rows,
            pool,
            ledger,
            sign=sign,
            limits=assembly.publication_limits(config, section, accept_deletes=False),
            notify=notify,
            clock=clock,
        )
