"""Pseudonyms in the trace: the database and its backups do not hold those of persons, and months can be forgotten.

A provider publishes. Whoever has the database, and even the key of the topic, finds nobody beside the receipts without
the key of the month. Two persons destroy the keys of months that are over; what was copied before says nothing.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from exchange.admin_client import AdminClient
from exchange.demo.people import persons
from exchange.identity.audit_pseudonyms import AuditPseudonyms, epoch_of
from exchange.identity.keyfile import create_private
from exchange.identity.pseudonyms import Pseudonyms
from exchange.identity.secrets import FileSecrets
from exchange.server.clock import microseconds
from schemas import library
from schemas.canonical import canonical
from schemas.errors import InvalidError, PoolError, Reason, RefusedError, UnavailableError
from schemas.identifiers import random_id, uuid7
from schemas.merkle import leaf_hash
from schemas.names import Topic
from tests.kit.patience import wait_for
from tests.kit.world.publisher import Publisher, chunks, framed
from tests.kit.world.world import World

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

TOPIC = Topic.parse("population.v1")
ROWS = list(persons(20))
OLD = "2025-11"
OLD_TIME = int(datetime(2025, 11, 5, tzinfo=UTC).timestamp()) * 1_000_000


@dataclass
class City:
    world: World
    operator: AdminClient
    second: AdminClient  # another data authority than `world.root`

    @property
    def audit(self) -> Path:
        return self.world.data / "secrets" / "audit"

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        connection = psycopg2.connect((self.world.data / "database-url").read_text().strip().replace("+psycopg2", ""))
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(statement, values)
                return [*cursor.fetchall()] if cursor.description else []
        finally:
            connection.close()

    def keys(self, sequence: int) -> bytes:
        [(stored,)] = self.sql("SELECT keys FROM audit_receipt WHERE sequence = %s", sequence)
        return bytes(stored or b"")

    def opened(self, stored: bytes) -> bytes:
        return AuditPseudonyms(FileSecrets.open(self.world.data / "secrets"), microseconds).open(stored)

    def confirm(self, who: AdminClient, proposal: str) -> Any:
        """Confirm as soon as the proposal is in the signed log."""
        answer: list[Any] = []

        def confirmed() -> bool:
            try:
                answer.append(who.post(f"/audit/keys/prunings/{proposal}/confirmation"))
            except UnavailableError as error:
                if error.reason is not Reason.LOG_BEHIND:
                    raise
            return bool(answer)

        wait_for(confirmed, "the proposal is signed")
        return answer[0]


@pytest.fixture(scope="module")
def city() -> Iterator[City]:
    with World.start() as world:
        provider = world.department("公安局")
        provider.offer(str(TOPIC), library.text("population"))
        source = provider.enrol("source")
        with world.client(source) as pool:
            schema_id, text = pool.schema(TOPIC)
            publisher = Publisher(source.pool_id, provider.id, "source", str(TOPIC), source.signing_key)
            batches = (publisher.batch(framed(schema_id, text, rows)) for rows in chunks(ROWS, 10))
            assert len(list(pool.publish(TOPIC, batches))) == 2
        yield City(world, world.account("operator-1", "operator"), world.people.second(world))


def pseudonyms(city: City, start: int) -> list[bytes]:
    made = Pseudonyms(FileSecrets.open(city.world.data / "secrets"))
    return made.pseudonyms(TOPIC, [str(row["id_number"]).encode() for row in ROWS[start : start + 10]])


def test_the_database_holds_no_pseudonym_that_the_topic_s_key_makes(city: City) -> None:
    for sequence, start in ((1, 0), (2, 10)):
        stored, known = city.keys(sequence), pseudonyms(city, start)
        assert len(stored) == 24 + 10 * 16
        assert not any(one in stored for one in known)
        assert city.opened(stored) == b"".join(known), "the month's key gives them, in the order of the batch"


def test_the_running_pool_has_drawn_the_key_of_this_month(city: City) -> None:
    now = epoch_of(microseconds())
    assert [path.name for path in city.audit.iterdir()] == [f"{now}.key"]
    assert city.keys(1)[1:8].decode() == now
    for reader in (city.world.root, city.operator, city.world.account("auditor-1", "auditor")):
        [listed] = reader.get("/audit/keys")
        assert (listed["epoch"], listed["over"]) == (now, False)
        assert bytes.fromhex(listed["fingerprint"]) == city.keys(1)[8:24]


def test_a_department_sees_no_key_and_proposes_nothing(city: City) -> None:
    officer = city.world.department("人社局").account("security_officer")
    for call in (
        lambda: officer.get("/audit/keys"),
        lambda: officer.post("/audit/keys/prunings", {"before": "2025-12"}),
        lambda: officer.post("/audit/keys/prunings/x/confirmation"),
    ):
        with pytest.raises(RefusedError):
            call()


@pytest.mark.parametrize("before", ["2026-11", "2026-10", "2099-01", "2026", "x"])
def test_what_is_not_over_for_six_months_is_kept(city: City, before: str) -> None:
    with pytest.raises(InvalidError) as caught:
        city.operator.post("/audit/keys/prunings", {"before": before})
    assert caught.value.reason is Reason.REQUEST_INVALID


def test_two_persons_destroy_an_old_month_and_no_copy_can_be_read(city: City) -> None:
    """The first batch is made one of last year, under the key of its month."""
    create_private(city.audit / f"{OLD}.key", os.urandom(32))
    secrets = FileSecrets.open(city.world.data / "secrets")
    key = secrets.audit_key(OLD)
    known = pseudonyms(city, 0)
    old = _sealed(key, known)
    city.sql("UPDATE audit_receipt SET keys = %s WHERE sequence = 1", old)
    city.sql(
        "UPDATE audit_entry e SET at = %s FROM audit_receipt r WHERE r.entry_id = e.id AND r.sequence = 1", OLD_TIME
    )
    assert city.opened(old) == b"".join(known)
    copy, newer = city.keys(1), city.keys(2)

    proposal = city.operator.post("/audit/keys/prunings", {"before": "2025-12"})
    assert proposal["epochs"] == [OLD]
    with pytest.raises(RefusedError):
        city.operator.post(f"/audit/keys/prunings/{proposal['id']}/confirmation")
    assert city.keys(1) == copy, "one person destroys nothing"
    done = city.confirm(city.second, proposal["id"])
    assert done == {"before": "2025-12", "epochs": [OLD], "batches": 1}

    assert city.keys(1) == b""
    assert not (city.audit / f"{OLD}.key").exists()
    assert city.opened(copy) == b"", "a copy of the row says nothing any more"
    assert city.keys(2) == newer
    assert city.opened(newer) == b"".join(pseudonyms(city, 10))
    with pytest.raises(InvalidError):
        secrets.draw_audit_key(OLD)
    [entry] = city.world.root.get("/audit/entries", {"action": "audit:keys:prune", "decision": "allow", "limit": 1})
    assert entry["entry"]["data"] == {
        "proposal": proposal["id"], "before": "2025-12", "epochs": [OLD], "batches": 1
    }  # fmt: skip
    assert city.confirm(city.second, proposal["id"])["batches"] == 0, "a repetition after a crash does the rest"


def _sealed(key: bytes, known: list[bytes]) -> bytes:
    class _Old:
        def audit_epochs(self) -> list[str]:
            return []

        def draw_audit_key(self, epoch: str) -> bytes:
            assert epoch == OLD
            return key

    return b"".join(AuditPseudonyms(_Old(), lambda: OLD_TIME).seal(known))  # type: ignore[arg-type]


def test_who_proposes_does_not_confirm(city: City) -> None:
    proposal = city.world.root.post("/audit/keys/prunings", {"before": "2025-12"})
    with pytest.raises(RefusedError) as caught:
        city.confirm(city.world.root, proposal["id"])
    assert caught.value.reason is Reason.SAME_PERSON


def test_what_is_no_proposal_is_not_confirmed(city: City) -> None:
    [other] = city.world.root.get("/audit/entries", {"action": "audit:keys:prune", "limit": 1})
    [failed] = [
        one
        for one in city.world.root.get("/audit/entries", {"action": "audit:keys:propose", "limit": 100})
        if "failed" in one["entry"].get("data", {})
    ][:1]
    for entry_id in (other["entry"]["id"], failed["entry"]["id"], uuid7(microseconds()), "x"):
        with pytest.raises(InvalidError) as caught:
            city.second.post(f"/audit/keys/prunings/{entry_id}/confirmation")
        assert caught.value.reason is Reason.NOT_FOUND


def test_a_proposal_that_was_put_into_the_database_is_none(city: City) -> None:
    """The last one here: the sequencer may stop at the invented row."""
    template = city.world.root.get("/audit/entries", {"action": "audit:keys:propose", "limit": 1})[0]["entry"]
    made = {**template, "id": uuid7(microseconds()), "at": microseconds(), "salt": random_id(), "gateway": "gw@x#1"}
    leaf = canonical(made)
    city.sql(
        "INSERT INTO audit_entry (id, leaf, leaf_hash, at, action, decision, actor_department, resource, grant_id, "
        "purpose, case_number) VALUES (%s, %s, %s, %s, 'audit:keys:propose', 'allow', '', 'audit-keys', '', '', '')",
        made["id"], leaf, leaf_hash(leaf), made["at"],
    )  # fmt: skip
    with pytest.raises(PoolError) as caught:
        city.second.post(f"/audit/keys/prunings/{made['id']}/confirmation")
    assert caught.value.reason in {Reason.LOG_BEHIND, Reason.NOT_FOUND}
