"""Corrections as people use them: a consumer doubts a value, its source answers, and who received it is told."""

import base64
import json
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest
import sqlalchemy as sa

from exchange.admin_client import AdminClient
from exchange.client.messages import FetchResult
from exchange.demo.people import persons
from schemas.errors import PoolError, Reason
from schemas.names import Topic
from schemas.record import KeyOccurrence, Mark, Operation
from tests.integration.test_records_http import tls
from tests.kit.patience import PATIENCE, wait_for
from tests.kit.world.publisher import AGAIN, Publisher, framed
from tests.kit.world.world import Office, World
from tests.torture.clerks import SCHEMA

pytestmark = [pytest.mark.e2e, pytest.mark.postgres]

CORRECT = int(Mark(Operation.CORRECT, KeyOccurrence.AGAIN))
CLAIMED = str(next(iter(persons(1)))["id_number"])  # a number that a text may not hold
EVIDENCE = "the paper permit of 0571-87654321 says so"
_numbers = count(1)


class Town:
    """A provider of permits, and departments that drew them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.topic = Topic.parse("corrected-permits.v1")
        self.provider = world.department("许可局")
        self.provider.offer(str(self.topic), SCHEMA, level="G2")
        self.source = self.provider.enrol("source")
        self.publisher = Publisher(
            self.source.pool_id, self.provider.id, "source", str(self.topic), self.source.signing_key
        )
        self.raiser, self.other, self.blind, self.absent = map(
            self.consumer, ("人社局", "民政局", "城管局", "医保局"), ([], [], ["permit_no"], [])
        )
        self.stranger = world.department("水务局")
        self.engine = sa.create_engine((world.data / "database-url").read_text().strip())

    def consumer(self, name: str, fields: list[str]) -> "Consumer":
        return Consumer(self, self.world.department(name), fields or ["permit_no", "district"])

    def publish(self, permit: str, district: str, mark: int = AGAIN) -> None:
        with self.world.client(self.source) as pool:
            schema_id, text = pool.schema(self.topic)
            rows = [{"permit_no": permit, "version": 1, "district": district, "note": None}]
            list(pool.publish(self.topic, [self.publisher.batch(framed(schema_id, text, rows), marks=bytes([mark]))]))

    def entries(self, action: str, **query: Any) -> list[dict[str, Any]]:
        found = self.world.root.get("/audit/entries", {"action": f"exchange:correction:{action}", "limit": 50, **query})
        return [one["entry"] for one in found]

    @property
    def head(self) -> AdminClient:
        return self.provider.account("sharing_office_head")


class Consumer:
    """A department with a grant."""

    def __init__(self, town: Town, office: Office, fields: list[str]) -> None:
        self.town, self.office, self.id = town, office, office.id
        self.identity = office.enrol("drawer")
        self.grant = office.request(str(town.topic), fields)
        town.provider.approve(self.grant)
        self.position = b""

    @property
    def head(self) -> AdminClient:
        return self.office.account("sharing_office_head")

    def fetch(self) -> FetchResult:
        with self.town.world.client(self.identity) as pool:
            got = pool.fetch(self.grant, position=self.position, purpose="eligibility", case="STANDING-1")
        self.position = got.next_position
        return got


@pytest.fixture(scope="module")
def town(postgres_world: World) -> Town:
    return Town(postgres_world)


class Doubt:
    """A permit whose district is doubted by one consumer, and was received by others."""

    def __init__(self, town: Town) -> None:
        self.town, self.permit = town, f"p{next(_numbers)}"
        self.keys = {}
        drawn = (town.raiser, town.other, town.blind)
        for one in drawn:
            one.fetch()  # what other tests have left
        town.publish(self.permit, "东城")
        for one in drawn:
            [key], [at] = (got := one.fetch()).keys(), got.times()
            self.keys[one.id], self.at = key.hex(), datetime.fromtimestamp(at / 1e6, UTC)

    def body(self, **changes: Any) -> dict[str, Any]:
        return {
            "grant": self.town.raiser.grant,
            "record_key": self.keys[self.town.raiser.id],
            "field": "district",
            "claimed": CLAIMED,
            "claim_evidence": EVIDENCE,
            **changes,
        }

    def open(self, **changes: Any) -> str:
        return str(self.town.raiser.head.post("/corrections", self.body(**changes))["id"])


@pytest.fixture
def doubt(town: Town) -> Doubt:
    return Doubt(town)


def refused(act: Callable[[], object]) -> Reason:
    with pytest.raises(PoolError) as caught:
        act()
    return caught.value.reason


def test_who_received_the_old_value_is_told_of_its_correction_and_nobody_else(town: Town, doubt: Doubt) -> None:
    ticket = doubt.open()
    head = town.head
    assert head.post(f"/corrections/{ticket}/acceptance")["state"] == "verifying"
    assert refused(lambda: head.post(f"/corrections/{ticket}/correction", {})) is Reason.CORRECTION_MISSING
    town.publish(doubt.permit, "西城")
    assert refused(lambda: head.post(f"/corrections/{ticket}/correction", {})) is Reason.CORRECTION_MISSING, "an upsert"
    town.publish("another", "西城", CORRECT)
    assert refused(lambda: head.post(f"/corrections/{ticket}/correction", {})) is Reason.CORRECTION_MISSING, "another's"
    town.publish(doubt.permit, "东城", CORRECT)
    assert refused(lambda: head.post(f"/corrections/{ticket}/correction", {})) is Reason.CORRECTION_MISSING, "the same"
    town.publish(doubt.permit, "西城", CORRECT)
    answered = head.post(f"/corrections/{ticket}/correction", {})
    assert answered["state"] == "corrected"
    [published] = [one["entry"] for one in town.world.root.get("/audit/entries", {"entry": answered["correction"]})]
    assert (published["action"], published["resource"]) == ("exchange:records:publish", str(town.topic))
    wait_for(lambda: head.get(f"/corrections/{ticket}")["state"] == "closed_corrected", "who received it is told")

    told = {one["consumer"]: one for one in town.world.root.list("/correction-notices", {"ticket": ticket})}
    assert set(told) == {town.raiser.id, town.other.id}, "not who has no such field, nor who fetched nothing"
    for one in (town.raiser, town.other):
        assert told[one.id]["record_key"] == doubt.keys[one.id]
        [own] = one.head.list("/correction-notices", {"ticket": ticket})
        assert own == told[one.id]
        [release] = [each["entry"] for each in town.world.root.get("/audit/entries", {"entry": own["release"]})]
        assert (release["action"], release["grant"]["id"]) == ("exchange:records:fetch", one.grant)
    assert head.get(f"/corrections/{ticket}")["told"] == 2

    notice = told[town.other.id]["id"]
    assert refused(lambda: town.raiser.head.post(f"/correction-notices/{notice}/acknowledgement")) is Reason.NOT_FOUND
    assert town.other.head.post(f"/correction-notices/{notice}/acknowledgement")["acknowledged_at"]
    assert head.get(f"/corrections/{ticket}")["acknowledged"] == 1
    waiting = town.world.root.list("/correction-notices", {"ticket": ticket, "acknowledged": "false"})
    assert [one["consumer"] for one in waiting] == [town.raiser.id]
    again = lambda: town.other.head.post(f"/correction-notices/{notice}/acknowledgement")  # noqa: E731
    assert refused(again) is Reason.TRANSITION_NOT_ALLOWED

    [entry] = [one for one in town.entries("notify") if one["data"]["ticket"] == ticket]
    assert entry["data"]["departments"] == sorted([town.raiser.id, town.other.id])


def test_a_ticket_names_its_clock_and_no_value_is_in_the_log_or_the_database(town: Town, doubt: Doubt) -> None:
    ticket = doubt.open(recorded_at=doubt.at.isoformat())
    shown = town.raiser.head.get(f"/corrections/{ticket}")
    assert (shown["source"], shown["due"]) == (town.provider.id, "normal")
    [entry] = [one for one in town.entries("open") if one["data"].get("ticket") == ticket]
    assert (entry["data"]["rule"], entry["data"]["profile"]) == ("correction", "809")
    assert entry["data"]["due_at"] == shown["due_at"]
    assert entry["grant"]["id"] == town.raiser.grant
    assert refused(doubt.open) is Reason.ALREADY_EXISTS
    town.head.post(f"/corrections/{ticket}/acceptance")
    claim = town.head.get(f"/corrections/{ticket}/claim")
    assert (claim["claimed"], claim["evidence"]) == (CLAIMED, EVIDENCE)
    assert json.loads(claim["record"])["permit_no"] == doubt.permit
    assert town.raiser.head.get(f"/corrections/{ticket}/claim")["record"] == "", "the consumer sees its view alone"
    town.head.post(f"/corrections/{ticket}/confirmation", {"reason": "the register is right"})
    assert [one["data"]["shown"] for one in town.entries("reveal") if one["data"].get("ticket") == ticket] == [
        "claim",
        "claim and record",
    ]
    with town.engine.connect() as connection:
        rows = str(connection.execute(sa.text("SELECT * FROM correction_ticket")).all())
        leaves = b"".join(row[0] for row in connection.execute(sa.text("SELECT leaf FROM audit_entry")))
    log = (town.world.folder / "pool.log").read_text()
    for text in (CLAIMED, EVIDENCE):
        assert text not in rows
        assert text not in log
        assert text.encode() not in leaves


def test_a_disputed_value_is_served_with_a_mark_until_the_ticket_is_closed(town: Town, doubt: Doubt) -> None:
    ticket = doubt.open()

    def marked(one: Consumer) -> set[str]:
        one.position = b"\x00"
        got = one.fetch()
        return {got.keys()[index].hex() for index in got.disputed}

    wait_for(lambda: doubt.keys[town.other.id] in marked(town.other), "the mark is in a fetch")
    assert doubt.keys[town.raiser.id] in marked(town.raiser)
    assert marked(town.blind) == set(), "who is not shown the field is told nothing"
    assert "disputed" in str(_as_json(town, town.other, doubt.keys[town.other.id]))
    query = {"grant": town.other.grant, "record_key": doubt.keys[town.other.id]}
    assert town.other.head.get("/corrections/disputed", query)["fields"] == ["district"]
    blind = {"grant": town.blind.grant, "record_key": doubt.keys[town.blind.id]}
    assert not town.blind.head.get("/corrections/disputed", blind)["disputed"]
    assert refused(lambda: town.blind.head.get("/corrections/disputed", query)) is Reason.OTHER_DEPARTMENT
    town.raiser.head.post(f"/corrections/{ticket}/withdrawal", {"reason": "it was a misreading"})
    wait_for(lambda: doubt.keys[town.other.id] not in marked(town.other), "the mark is gone")
    assert "disputed" not in str(_as_json(town, town.other, doubt.keys[town.other.id]))
    assert not town.other.head.get("/corrections/disputed", query)["disputed"]


def _as_json(town: Town, one: Consumer, key: str) -> dict[str, Any]:
    import httpx

    address = f"https://{town.world.addresses['http']}/v1/records/fetch"
    body = {"grant": one.grant, "purpose": "eligibility", "case": "STANDING-1"}
    body["position"] = base64.b64encode(b"\x00").decode()
    with httpx.Client(verify=tls(town.world, one.identity), timeout=PATIENCE) as http:
        records = http.post(address, json=body).json()["records"]
    [found] = [record for record in records if record["record_key"] == key][-1:]
    return dict(found)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"grant": "0198c0de-0000-7000-8000-00000000dead"}, Reason.GRANT_UNKNOWN),
        ({"field": "note"}, Reason.FIELD_UNKNOWN),
        ({"record_key": "00" * 16}, Reason.NOT_FOUND),
        ({"claim_evidence": " "}, Reason.REQUEST_INVALID),
        ({"claim_evidence": "x" * 2001}, Reason.REQUEST_INVALID),
        ({"record_key": "zz"}, Reason.REQUEST_INVALID),
    ],
    ids=["no grant", "a field that is not shown", "no such record", "no evidence", "too long", "no key"],
)
def test_what_cannot_be_doubted_is_refused(town: Town, doubt: Doubt, change: dict[str, Any], reason: Reason) -> None:
    assert refused(lambda: doubt.open(**change)) is reason


def test_who_has_no_grant_of_its_own_is_refused_with_an_entry(town: Town, doubt: Doubt) -> None:
    head = town.stranger.account("sharing_office_head")
    assert refused(lambda: head.post("/corrections", doubt.body())) is Reason.GRANT_OTHER_CONSUMER
    [entry] = town.entries("open", department=town.stranger.id)
    assert (entry["decision"], entry["reason"]) == ("deny", "grant_other_consumer")
    own = town.absent
    for state in ("suspend", "terminate"):
        town.head.post(f"/grants/{own.grant}/{state}", {"reason": "a test"})
        body = doubt.body(grant=own.grant)
        assert refused(lambda body=body: own.head.post("/corrections", body)) is Reason.GRANT_NOT_ACTIVE  # type: ignore[misc]


def test_another_department_s_ticket_does_not_exist_for_the_caller(town: Town, doubt: Doubt) -> None:
    ticket = doubt.open()
    notice = "0198c0de-0000-7000-8000-00000000dead"
    for head in (town.stranger.account("sharing_office_head"), town.other.head):
        assert ticket not in {one["id"] for one in head.list("/corrections")}
        for path in (f"/corrections/{ticket}", f"/corrections/{ticket}/claim", f"/correction-notices/{notice}"):
            assert refused(lambda head=head, path=path: head.get(path)) is Reason.NOT_FOUND  # type: ignore[misc]
        for what, body in (
            ("acceptance", None),
            ("correction", {}),
            ("confirmation", {"reason": "x"}),
            ("refusal", {"reason": "x"}),
            ("withdrawal", {"reason": "x"}),
            ("transfer", {"department": head_of(town), "reason": "x"}),
        ):
            path = f"/corrections/{ticket}/{what}"
            assert refused(lambda head=head, path=path, body=body: head.post(path, body)) is Reason.NOT_FOUND  # type: ignore[misc]
            unknown = path.replace(ticket, notice)
            assert refused(lambda head=head, path=unknown, body=body: head.post(path, body)) is Reason.NOT_FOUND  # type: ignore[misc]
    denied = town.entries("accept", department=town.stranger.id)
    assert [one["reason"] for one in denied] == ["not_found"]
    raiser = town.raiser.head
    assert refused(lambda: raiser.post(f"/corrections/{ticket}/acceptance")) is Reason.OTHER_DEPARTMENT
    assert refused(lambda: town.head.post(f"/corrections/{ticket}/withdrawal", {"reason": "x"})) is (
        Reason.OTHER_DEPARTMENT
    )
    raiser.post(f"/corrections/{ticket}/withdrawal", {"reason": "a test"})


def head_of(town: Town) -> str:
    return town.stranger.id


def test_a_ticket_goes_to_the_source_and_keeps_its_first_receipt(town: Town, doubt: Doubt) -> None:
    ticket = doubt.open()
    before = town.head.get(f"/corrections/{ticket}")
    body = {"department": town.stranger.id, "reason": "水务局是数源部门"}
    moved = town.head.post(f"/corrections/{ticket}/transfer", body)
    assert (moved["source"], moved["transfers"]) == (town.stranger.id, 1)
    assert (moved["received_at"], moved["due_at"]) == (before["received_at"], before["due_at"])
    assert refused(lambda: town.head.post(f"/corrections/{ticket}/acceptance")) is Reason.OTHER_DEPARTMENT
    new = town.stranger.account("sharing_office_head")
    new.post(f"/corrections/{ticket}/acceptance")
    nobody = {"department": "nobody", "reason": "x"}
    assert refused(lambda: town.world.root.post(f"/corrections/{ticket}/transfer", nobody)) is Reason.DEPARTMENT_UNKNOWN
    back = {"department": town.provider.id, "reason": "机构改革"}
    assert town.world.root.post(f"/corrections/{ticket}/transfer", back)["state"] == "opened"
    town.head.post(f"/corrections/{ticket}/acceptance")
    closed = town.head.post(f"/corrections/{ticket}/refusal", {"reason": "no file of that year"})
    assert (closed["state"], closed["due"]) == ("closed_rejected", None)


def test_a_successor_reads_and_acknowledges_what_the_merged_department_was_to_be_told(town: Town) -> None:
    """Of a value that it drew under a grant that is moved, and of one under a grant that had ended before."""
    old, ended = town.consumer("旧社保局", []), town.consumer("旧就业局", [])
    new = town.world.department("新人社局")
    doubt = Doubt(town)
    for one in (old, ended):
        one.fetch()
    first, head = doubt.open(), town.head
    head.post(f"/grants/{ended.grant}/suspend", {"reason": "核查"})
    head.post(f"/grants/{ended.grant}/terminate", {"reason": "不再需要"})
    # One is merged before anybody is told, the other after.
    town.world.root.post(f"/departments/{ended.id}/merger", {"into": new.id, "reason": "机构改革"})
    head.post(f"/corrections/{first}/acceptance")
    town.publish(doubt.permit, "西城", CORRECT)
    head.post(f"/corrections/{first}/correction", {})
    wait_for(lambda: head.get(f"/corrections/{first}")["state"] == "closed_corrected", "who received it is told")
    town.world.root.post(f"/departments/{old.id}/merger", {"into": new.id, "reason": "机构改革"})
    successor = new.account("sharing_office_head")
    told = successor.list("/correction-notices", {"ticket": first})
    assert {one["grant"] for one in told} == {old.grant, ended.grant}
    assert {one["consumer"] for one in told} == {new.id}
    for one in told:
        assert successor.post(f"/correction-notices/{one['id']}/acknowledgement")["acknowledged_at"]
    moved = [
        one["entry"]["data"]
        for one in town.world.root.list("/audit/entries", {"action": "registry:department:succeed"})
        if one["entry"]["data"]["what"] == "notice"
    ]
    assert [(one["before"], one["into"]) for one in moved] == [(old.id, new.id)]


def test_an_erasure_takes_the_person_out_of_its_tickets(town: Town, doubt: Doubt) -> None:
    ticket = doubt.open()
    body = {"topic": str(town.topic), "key": [doubt.permit], "reason": "依法删除"}
    erasure = town.provider.account("security_officer").post("/erasures", body)["id"]
    town.head.post(f"/erasures/{erasure}/confirmation")
    shown = town.head.get(f"/corrections/{ticket}")
    assert (shown["state"], shown["record_key"]) == ("closed_rejected", "")
    assert town.head.get(f"/corrections/{ticket}/claim") == {"claimed": None, "evidence": None, "record": ""}
    with town.engine.connect() as connection:
        row = connection.execute(
            sa.text("SELECT record, record_key, claim FROM correction_ticket WHERE id = :id"), {"id": ticket}
        ).one()
    assert tuple(map(bytes, row)) == (b"", b"", b"")
    [entry] = town.world.root.get("/audit/entries", {"action": "exchange:erasure:confirm", "limit": 1})
    assert entry["entry"]["data"]["correction_tickets"] == 1


def test_a_forged_ticket_closes_nothing_and_hides_no_other(town: Town, doubt: Doubt) -> None:
    ticket, other = doubt.open(), Doubt(town).open()
    with town.engine.begin() as connection:
        changed = {"id": ticket, "source": town.stranger.id}
        connection.execute(sa.text("UPDATE correction_ticket SET source = :source WHERE id = :id"), changed)
    head = town.stranger.account("sharing_office_head")
    assert refused(lambda: head.post(f"/corrections/{ticket}/acceptance")) is Reason.ROW_FORGED
    listed = {one["id"]: one for one in town.world.root.list("/corrections", {"topic": str(town.topic)})}
    assert listed[ticket] == {"id": ticket, "status": "damaged"}
    assert listed[other]["state"] == "opened"
    with town.engine.begin() as connection:
        changed["source"] = town.provider.id
        connection.execute(sa.text("UPDATE correction_ticket SET source = :source WHERE id = :id"), changed)


def pool(town: Town, account: AdminClient, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command as an account."""
    token = town.world.folder / f"{next(_numbers)}.token"
    token.write_text(account._headers["authorization"].removeprefix("Bearer "))
    noun, *rest = words
    return town.world.programs.run(
        "pool", noun, "--data", str(town.world.data), "--token-file", str(token), *rest, check=False
    )


def test_the_commands(town: Town, doubt: Doubt) -> None:
    raiser, head = town.raiser.head, town.head
    claim = town.world.folder / "claim.txt"
    claim.write_text(f"西城\n{EVIDENCE}\n", encoding="utf-8")
    opening = ("open", town.raiser.grant, doubt.keys[town.raiser.id], "district", "--claim-file", str(claim))
    opened = pool(town, raiser, "correction", *opening, "--recorded-at", doubt.at.isoformat())
    assert opened.returncode == 0, opened.stderr
    ticket = opened.stdout.split(":")[0]
    assert "already_exists" in pool(town, raiser, "correction", *opening).stderr
    assert "许可局" in pool(town, raiser, "correction", "list", "--state", "opened").stdout
    assert '"due": "normal"' in pool(town, raiser, "correction", "show", ticket, "--json").stdout
    said = pool(town, raiser, "correction", "disputed", town.raiser.grant, doubt.keys[town.raiser.id]).stdout
    assert "district" in said
    for words, expected in (
        (("accept", ticket), "verifying"),
        (("claim", ticket), EVIDENCE),
        (("correct", ticket), "correction_missing"),
        (("confirm", ticket, "--reason", "the register is right"), "closed_confirmed"),
        (("notices", "--waiting"), ""),
        (("acknowledge", ticket), "not_found"),
    ):
        done = pool(town, head, "correction", *words)
        assert expected in done.stdout + done.stderr, (words, done.stdout, done.stderr)
