"""Replay of quarantined records: what a target could not hold is written once more, after somebody has mended it.

A record that was rejected does not come again by itself: the position has moved past it. The quarantine has its key,
its time and its bytes, so it is written as it was delivered, by the sink as any other, which never lets an earlier
record replace a later one. What was delivered of a key later, a withdrawal too, closes its entries before it is written
(`Quarantine.close_overtaken`), so nothing comes back that is not valid any more.

What is not replayed: records of an earlier view, whose columns the target may not have any more; those from before the
target was filled again after a restore of the pool; and those that a program of before quarantined, which did not
close what was overtaken.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from connectors.port import DecodedRelease, Reject, RejectedRecord, Sink
from connectors.state.ledger import Ledger
from connectors.state.quarantine import KEY_SIZE, OVERTAKEN_SINCE, Quarantine, QuarantineEntry, read_entries
from connectors.subscribing.nanoseconds import as_deliverable
from registry.codec.codec import Engine
from schemas.errors import ConflictError, Reason
from schemas.record import FRAME_SIZE, frame

__all__ = ["ReplayReport", "replay"]

_PAGE = 500  # records


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """The balance: `tried` = `written` + `rejected`; for `skipped` see the module."""

    tried: int = 0
    written: int = 0
    rejected: int = 0
    skipped: int = 0


def replay(grant: str, sink: Sink, ledger: Ledger, schema_id: int, engine: Engine) -> ReplayReport:
    """Write the open records of a grant's quarantine once more.

    Args:
        grant: its id.
        sink: prepared for the view.
        ledger: of the subscription.
        schema_id: of the view.
        engine: of that schema.

    Raises:
        ConflictError: POSITION_INVALID, the target holds nothing of this grant yet; VERSION_CONFLICT, another process
            writes to it.
        UnavailableError: the target is away.
    """
    position = sink.position()
    if not position:
        raise ConflictError(Reason.POSITION_INVALID, f"nothing of {grant} was written to this target yet; run it first")
    quarantine = Quarantine(ledger)
    run = ledger.begin_run(grant)
    head = frame(schema_id, b"")
    since = max(ledger.meta("begun_again"), ledger.meta(OVERTAKEN_SINCE) or "9999")
    tried = rejected = skipped = 0
    for entries in _pages(list(read_entries(ledger.sql))):
        current = [each for each in entries if each.original[KEY_SIZE:].startswith(head) and each.first_seen >= since]
        skipped += len(entries) - len(current)
        if not current:
            continue
        release = _release(current, engine)
        refused: list[RejectedRecord] = []
        sink.write(release, position, position, refused.extend)
        quarantine.add(grant, run.id, [_reject(release, each) for each in refused])
        bad = {each.index for each in refused}
        quarantine.close([each.id for index, each in enumerate(current) if index not in bad])
        tried += len(current)
        rejected += len(bad)
    written = tried - rejected
    ledger.end_run(replace(run, read=tried, published=written, quarantined=rejected, outcome="replayed"))
    return ReplayReport(tried=tried, written=written, rejected=rejected, skipped=skipped)


def _pages(entries: Sequence[QuarantineEntry]) -> Iterator[list[QuarantineEntry]]:
    left = iter(entries)
    while page := list(islice(left, _PAGE)):
        yield page


def _release(entries: Sequence[QuarantineEntry], engine: Engine) -> DecodedRelease:
    values = [each.original[KEY_SIZE:] for each in entries]
    return DecodedRelease(
        keys=[each.original[:KEY_SIZE] for each in entries],
        recorded_at=[each.line for each in entries],  # see `Subscriber`
        withdrawn=[False] * len(entries),
        records=as_deliverable(engine.decode([value[FRAME_SIZE:] for value in values])),
        values=values,
        entry_id="",
    )


def _reject(release: DecodedRelease, rejected: RejectedRecord) -> Reject:
    return Reject(
        line=release.recorded_at[rejected.index],
        code=rejected.code,
        field=rejected.field,
        message=rejected.message,
        original=release.keys[rejected.index] + release.values[rejected.index],
    )
