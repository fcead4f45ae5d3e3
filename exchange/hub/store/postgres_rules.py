"""PostgreSQL adapter of the rules' store: every row carries a tag, as decisions of several persons stand in it."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc as sa_exc
from typing_extensions import override

from exchange.hub.fold.rules import parse
from exchange.hub.services.rule_changes import Agreement, RulesState, RulesVersion
from exchange.hub.store.rules_store import RulesStore, rules_changed, version_taken
from exchange.hub.store.tables import rules as table
from registry.database.row_tags import RowTags
from registry.database.unit_of_work import Reader, UnitOfWork, connection_of

__all__ = ["PostgresRules"]

_LOCK = sa.text("SELECT pg_advisory_xact_lock(hashtextextended('hub-rules ' || :library, 0))")
_SHARED = sa.text("SELECT pg_advisory_xact_lock_shared(hashtextextended('hub-rules ' || :library, 0))")


class PostgresRules(RulesStore):
    """Store of rules in the table `hub_rules`.

    Args:
        tags: makes and checks the tags of rows.
    """

    def __init__(self, tags: RowTags) -> None:
        self._tags = tags

    @override
    def lock(self, work: UnitOfWork, library: str, *, shared: bool = False) -> None:
        connection_of(work).execute(_SHARED if shared else _LOCK, {"library": library})

    @override
    def add(self, work: UnitOfWork, version: RulesVersion) -> None:
        values = {
            "library": version.rules.library,
            "version": version.rules.version,
            "document": version.rules.text().decode(),
            **_changing(version),
        }
        try:
            with connection_of(work).begin_nested():
                self._tags.insert(work, table, values)
        except sa_exc.IntegrityError as error:
            raise version_taken() from error

    @override
    def change(self, work: UnitOfWork, version: RulesVersion, before: RulesState) -> None:
        same = (
            (table.c.library == version.rules.library)
            & (table.c.version == version.rules.version)
            & (table.c.state == before.value)
        )
        if len(self._tags.change(work, table, same, _changing(version))) != 1:
            raise rules_changed()

    @override
    def versions(self, reader: Reader, library: str) -> Sequence[RulesVersion]:
        own = sa.select(table).where(table.c.library == library).order_by(table.c.version)
        return [_read(self._tags.checked(table, row)) for row in connection_of(reader).execute(own)]

    @override
    def active(self, reader: Reader, library: str) -> RulesVersion | None:
        own = (table.c.library == library) & (table.c.state == RulesState.ACTIVE.value)
        row = connection_of(reader).execute(sa.select(table).where(own)).one_or_none()
        return None if row is None else _read(self._tags.checked(table, row))


def _changing(version: RulesVersion) -> dict[str, Any]:
    procedure = {
        "based_on": version.based_on,
        "departments": [*version.departments],
        "proposed_by": version.proposed_by,
        "proposed_at": version.proposed_at.isoformat(),
        "agreements": [
            {"department": one.department, "by": one.by, "at": one.at.isoformat()} for one in version.agreements
        ],
        "decided_by": version.decided_by,
        "decided_at": None if version.decided_at is None else version.decided_at.isoformat(),
        "reason": version.reason,
        "active_from": [*version.active_from],
    }
    return {
        "state": version.state.value,
        "procedure": json.dumps(procedure, ensure_ascii=False, sort_keys=True),
    }


def _read(row: Mapping[str, Any]) -> RulesVersion:
    procedure = json.loads(row["procedure"])
    decided_at = procedure["decided_at"]
    return RulesVersion(
        rules=parse(json.loads(row["document"])),
        state=RulesState(row["state"]),
        based_on=procedure["based_on"],
        departments=tuple(procedure["departments"]),
        proposed_by=procedure["proposed_by"],
        proposed_at=datetime.fromisoformat(procedure["proposed_at"]),
        agreements=tuple(
            Agreement(department=one["department"], by=one["by"], at=datetime.fromisoformat(one["at"]))
            for one in procedure["agreements"]
        ),
        decided_by=procedure["decided_by"],
        decided_at=None if decided_at is None else datetime.fromisoformat(decided_at),
        reason=procedure["reason"],
        active_from=tuple(procedure["active_from"]),
    )
