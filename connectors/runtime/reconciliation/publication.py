"""Reconciliation of a publication: its source, the ledger of this machine and the lane at the pool.

The lane's last batch (number and root, which is chained) says that the ledger is what the pool has; the ledger says of
each key which record that is (`connectors.publishing.reconciliation`). Nothing is published or changed.
"""

import os
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from connectors.config.config import ConnectorConfig
from connectors.config.publication_models import PublishConfig
from connectors.port import Pool, Replaces
from connectors.publishing.lane import earlier_schemas, fetch_earlier_contracts
from connectors.publishing.reconciliation import Reconciler, Reconciliation
from connectors.publishing.record_encoding import RecordEncoder
from connectors.runtime import assembly
from connectors.state.ledger import Ledger
from connectors.state.read_only import open_read_only
from registry.avro.parser import parse
from registry.codec.codec import engine_for
from schemas.errors import InvalidError, Reason
from schemas.names import Topic
from schemas.record import NO_ROOT

__all__ = ["Reconciled", "reconcile", "write_differences"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """A publication compared.

    Attributes:
        resource, portion: what was compared.
        sequence: of the last batch that the ledger has a receipt for.
        pool_sequence: of the lane's last one at the pool.
        same_lane: both are the same batch; not so while the connector publishes, or after the pool was restored.
        result: of the comparison.
    """

    resource: str
    portion: str
    sequence: int
    pool_sequence: int
    same_lane: bool
    result: Reconciliation


def reconcile(
    config: ConnectorConfig,
    section: PublishConfig,
    pool: Pool,
    *,
    clock: Callable[[], datetime],
    differences: Path | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Reconciled:
    """Compare a publication.

    Args:
        config: of the connector, which may run.
        section: the publication.
        pool: which says the contract and the lane's last batch.
        clock: of this machine.
        differences: file to write the keys to that differ, readable by this user alone; it must not exist yet.
        progress: is told the rows read so far.

    Raises:
        InvalidError: NOT_FOUND, nothing was published yet, or there is no file; CONFIG_INVALID, the source states
            additions only, or the file of the differences exists.
        PoolError: source or pool are away.
    """
    path = assembly.ledger_path(config, section.resource)
    if not path.exists():
        raise InvalidError(Reason.NOT_FOUND, f"nothing of {section.resource} was published from this machine yet")
    schema = pool.schema(Topic.parse(section.resource))
    mapping = assembly.column_mapping(section, schema)
    with ExitStack() as opened:
        ledger = opened.enter_context(closing(open_read_only(path)))
        names = dict(ledger.execute("SELECT name, value FROM meta").fetchall())
        own = ledger.execute("SELECT sequence, root FROM standing").fetchone() or (0, NO_ROOT)
        head = pool.resume(Topic.parse(section.resource))
        scratch = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="pool-connect-")))
        # A source needs a ledger for its history of files; it gets an empty one, which is deleted.
        history = opened.enter_context(closing(Ledger(scratch / "history.sqlite3", clock=clock)))
        source = opened.enter_context(closing(assembly.source(config, section, history, clock)))
        portion = assembly.first_portion(source, None)
        if portion is None:
            raise InvalidError(Reason.NOT_FOUND, "no file of the folder matches the pattern")
        if portion.replaces is not Replaces.EVERYTHING:
            raise InvalidError(
                Reason.CONFIG_INVALID,
                f"{portion.name} states a part of {section.resource} only (`replaces: {portion.replaces.value}`), so "
                "it cannot be compared with the whole",
            )
        encoder = RecordEncoder(mapping.contract, engine_for(parse(schema[1])))
        earlier = fetch_earlier_contracts(
            pool, earlier_schemas(lambda name: names.get(name, ""), schema[0]), mapping.contract
        )
        reconciler = opened.enter_context(closing(Reconciler(path, scratch / "keys.sqlite3", encoder, earlier)))
        result = reconciler.compare(portion, mapping.bind(portion.columns), progress)
        if differences is not None:
            write_differences(differences, reconciler.differences())
        return Reconciled(
            resource=section.resource,
            portion=portion.name,
            sequence=own[0],
            pool_sequence=head.sequence,
            same_lane=(own[0], own[1]) == (head.sequence, head.root or NO_ROOT),
            result=result,
        )


def write_differences(file: Path, found: Iterable[tuple[bytes, str]]) -> None:
    """Write keys that differ, and how, to a file of this user alone.

    Raises:
        InvalidError: CONFIG_INVALID, the file is there already, or cannot be made.
    """
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise InvalidError(
            Reason.CONFIG_INVALID, f"{file} cannot be made ({type(error).__name__}); name a file that is not there yet"
        ) from error
    with os.fdopen(descriptor, "w", encoding="utf-8") as target:
        for key, what in found:
            target.write(f"{what}\t{key.decode(errors='backslashreplace')}\n")
