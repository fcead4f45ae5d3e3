"""The owner of the database settles neither restore nor clock: what a gateway's entry says counts, not its row."""

import json
from pathlib import Path

import pytest
import sqlalchemy as sa

from exchange import migrations
from exchange.audit.ledger import AuditLedger
from exchange.audit.postgres import PostgresEntries
from exchange.audit.postgres_log import PostgresLog
from exchange.control.open_restores import find_open_restore, restored_file
from exchange.control.restores import RESTORE
from exchange.identity.keyfile import create_private, private_folder
from registry.database.unit_of_work import PostgresDatabase
from schemas.access import Action
from schemas.audit import AuditEntry, Decision
from schemas.canonical import Json, canonical
from schemas.errors import Reason
from tests.kit.cases.audit import Entries
from tests.kit.row_tags import entry_tags

pytestmark = pytest.mark.postgres

STATEMENT = "01935f1e-0000-7000-8000-0000000000aa"


class Restored:
    """A pool that was restored and is not settled, a gateway that writes entries, and the owner of its database."""

    def __init__(self, engine: sa.Engine, folder: Path) -> None:
        migrations.upgrade(engine)
        self.engine, self.folder = engine, folder
        self.database = PostgresDatabase(engine, accountable=True)
        self.ledger = AuditLedger(PostgresEntries(engine, entry_tags("gateway")), process="gateway@1")
        self.ledger.open(self.database)
        self.log = PostgresLog(engine, entry_tags("sequencer"))
        self.make = Entries()
        private_folder(folder / "secrets")
        create_private(restored_file(folder), json.dumps({"statement": STATEMENT, "whole": True}).encode())

    def write(self, action: Action, decision: Decision = Decision.ALLOW, **data: Json) -> str:
        reason = Reason.ROLE_MISSING if decision is Decision.DENY else None
        entry: AuditEntry = self.make.make(action, resource=RESTORE, decision=decision, reason=reason, data=data)
        with self.database.begin() as work:
            self.ledger.write(work, [entry])
        return entry.id

    def change(self, entry_id: str, **columns: object) -> None:
        """Change columns of an entry's row, as the owner of the database."""
        setting = ", ".join(f"{name} = :{name}" for name in columns)
        with self.engine.begin() as connection:
            statement = sa.text(f"UPDATE audit_entry SET {setting} WHERE id = :id")
            assert connection.execute(statement, {"id": entry_id, **columns}).rowcount == 1

    def leaf(self, entry_id: str) -> bytes:
        with self.engine.connect() as connection:
            found = connection.execute(sa.text("SELECT leaf FROM audit_entry WHERE id = :id"), {"id": entry_id})
            return bytes(found.scalar_one())

    def is_open(self) -> bool:
        return find_open_restore(self.engine, entry_tags("gateway"), self.folder) is not None


@pytest.fixture
def restored(engine: sa.Engine, tmp_path: Path) -> Restored:
    return Restored(engine, tmp_path)


def test_what_a_gateway_wrote_settles_it(restored: Restored) -> None:
    assert restored.is_open()
    restored.write(Action.RESTORE_SETTLE, statement=STATEMENT)
    assert not restored.is_open()


def test_a_leaf_put_under_another_entrys_tag_settles_nothing(restored: Restored) -> None:
    entry = restored.write(Action.CATALOGUE_READ)
    invented = json.loads(restored.leaf(entry)) | {"action": Action.RESTORE_SETTLE, "data": {"statement": STATEMENT}}
    restored.change(entry, leaf=canonical(invented), action=str(Action.RESTORE_SETTLE))
    assert restored.is_open()


def test_a_proposal_whose_row_calls_it_a_settlement_settles_nothing(restored: Restored) -> None:
    entry = restored.write(Action.RESTORE_PROPOSE, statement=STATEMENT)
    restored.change(entry, action=str(Action.RESTORE_SETTLE))
    assert restored.is_open()


def test_a_denial_whose_row_calls_it_allowed_settles_nothing(restored: Restored) -> None:
    entry = restored.write(Action.RESTORE_SETTLE, Decision.DENY, statement=STATEMENT)
    restored.change(entry, decision="allow")
    assert restored.is_open()


def test_the_rows_columns_make_no_proposal_about_the_clock(restored: Restored) -> None:
    """Else one person would settle the clock with what somebody was refused, or did about something else."""
    denied = restored.write(Action.CLOCK_PROPOSE, Decision.DENY)
    other = restored.write(Action.RESTORE_PROPOSE, statement=STATEMENT)
    restored.change(denied, decision="allow")
    restored.change(other, action=str(Action.CLOCK_PROPOSE))
    assert restored.log.gateway_entries(Action.CLOCK_PROPOSE) == []
    proposal = restored.write(Action.CLOCK_PROPOSE)
    assert restored.log.gateway_entries(Action.CLOCK_PROPOSE) == [restored.leaf(proposal)]
