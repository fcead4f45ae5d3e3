"""PostgreSQL adapter of the store of predicates; every row carries a tag, as two persons' decision stands in it."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from typing_extensions import override

from exchange.access.predicates.model import PredicateState, RegisteredPredicate, decided_before
from exchange.access.predicates.store import PredicateStore
from exchange.access.view.filter import filter_from_text, filter_to_text
from registry.database.damaged_row import DamagedRow
from registry.database.keyset import collect
from registry.database.row_tags import RowTags, tag_columns, tagged
from registry.database.unit_of_work import Reader, UnitOfWork, connection_of

__all__ = ["PostgresPredicates", "metadata"]

metadata = sa.MetaData()

_ID = sa.Text(collation="C")

_predicate = sa.Table(
    "access_predicate",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("name", _ID, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("library", _ID, nullable=False),
    sa.Column("expression", sa.Text, nullable=False),  # canonical JSON of the filter
    sa.Column("answers", sa.Text, nullable=False),
    sa.Column("replaces", sa.Text, nullable=False),  # JSON: a list of codes
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("proposed_by", sa.Text, nullable=False),
    sa.Column("proposed_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("decided_by", sa.Text, nullable=False),
    sa.Column("decided_at", sa.DateTime(timezone=True)),
    sa.Column("reason", sa.Text, nullable=False),
    *tag_columns(),
    sa.UniqueConstraint("name", "version"),
    sa.CheckConstraint("state <> 'confirmed' OR decided_by <> proposed_by", name="access_predicate_two_persons"),
    info=tagged("access"),
)
# A name need not have a row yet that could be locked, and the bound on open ones is of all names.
_LOCK = sa.text("SELECT pg_advisory_xact_lock(hashtextextended('access-predicate', 0))")


class PostgresPredicates(PredicateStore):
    """The adapter. Every call runs on the connection of its transaction.

    Args:
        tags: makes and checks the tags of rows.
    """

    def __init__(self, tags: RowTags) -> None:
        self._tags = tags

    @override
    def next_version(self, work: UnitOfWork, name: str) -> int:
        connection = connection_of(work)
        connection.execute(_LOCK)
        latest = sa.select(sa.func.coalesce(sa.func.max(_predicate.c.version), 0)).where(_predicate.c.name == name)
        return int(connection.execute(latest).scalar_one()) + 1

    @override
    def add(self, work: UnitOfWork, predicate: RegisteredPredicate) -> None:
        values = {
            "id": predicate.id,
            "name": predicate.name,
            "version": predicate.version,
            "library": predicate.library,
            "expression": filter_to_text(predicate.expression),
            "answers": predicate.answers,
            "replaces": json.dumps(predicate.replaces),
            "state": predicate.state.value,
            "proposed_by": predicate.proposed_by,
            "proposed_at": predicate.proposed_at,
            "decided_by": predicate.decided_by,
            "decided_at": predicate.decided_at,
            "reason": predicate.reason,
        }
        self._tags.insert(work, _predicate, values)

    @override
    def decide(self, work: UnitOfWork, predicate: RegisteredPredicate) -> None:
        values = {
            "state": predicate.state.value,
            "decided_by": predicate.decided_by,
            "decided_at": predicate.decided_at,
            "reason": predicate.reason,
        }
        proposed = (_predicate.c.id == predicate.id) & (_predicate.c.state == PredicateState.PROPOSED.value)
        if len(self._tags.change(work, _predicate, proposed, values)) != 1:
            raise decided_before(self.get(work, predicate.id) or predicate)

    @override
    def get(self, reader: Reader, predicate_id: str) -> RegisteredPredicate | None:
        statement = sa.select(_predicate).where(_predicate.c.id == predicate_id)
        row = connection_of(reader).execute(statement).one_or_none()
        return None if row is None else _read(self._tags.checked(_predicate, row))

    @override
    def confirmed(self, reader: Reader, references: Collection[str]) -> Mapping[str, RegisteredPredicate]:
        if not references:
            return {}
        names = sorted({reference.partition("/")[0] for reference in references})
        statement = sa.select(_predicate).where(
            _predicate.c.name.in_(names) & (_predicate.c.state == PredicateState.CONFIRMED.value)
        )
        rows = [row for row in connection_of(reader).execute(statement) if f"{row.name}/{row.version}" in references]
        found = [_read(self._tags.checked(_predicate, row)) for row in rows]
        return {one.reference: one for one in found}

    @override
    def page(
        self,
        reader: Reader,
        *,
        name: str | None = None,
        library: str | None = None,
        state: PredicateState | None = None,
        before: str = "",
        limit: int,
    ) -> Sequence[RegisteredPredicate | DamagedRow]:
        def read(key: str, most: int) -> Sequence[Any]:
            statement = sa.select(_predicate).order_by(_predicate.c.id.desc()).limit(most)
            if key:
                statement = statement.where(_predicate.c.id < key)
            for column, wanted in (
                (_predicate.c.name, name),
                (_predicate.c.library, library),
                (_predicate.c.state, state),
            ):
                if wanted is not None:
                    statement = statement.where(column == str(wanted))
            return connection_of(reader).execute(statement).all()

        def keep(rows: Sequence[Any]) -> Sequence[RegisteredPredicate | DamagedRow]:
            return self._tags.listed(_predicate, rows, _read, lambda row: DamagedRow.of(id=row["id"]))

        return collect(read, keep, lambda row: str(row.id), after=before, limit=limit)


def _read(row: Mapping[str, Any]) -> RegisteredPredicate:
    return RegisteredPredicate(
        id=row["id"],
        name=row["name"],
        version=row["version"],
        library=row["library"],
        expression=filter_from_text(row["expression"]),
        answers=row["answers"],
        replaces=tuple(json.loads(row["replaces"])),
        state=PredicateState(row["state"]),
        proposed_by=row["proposed_by"],
        proposed_at=row["proposed_at"],
        decided_by=row["decided_by"],
        decided_at=row["decided_at"],
        reason=row["reason"],
    )
