"""An approval is one act, all of it or nothing; a refusal cites a clause."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from exchange.access.decision.grant_rules import Event
from exchange.access.decision.roles import FORBIDDEN, Scope, rights_of
from exchange.authorization.request_context import RequestContext
from exchange.requests.details import Details
from exchange.requests.model import Ground
from exchange.server.composition import App
from exchange.server.initialise import initialise
from registry.directory.model import CatalogueEntry, GovernmentLevel, ShareType
from schemas.access import Action, Actor, Grant, GrantState, Level, Role
from schemas.errors import InvalidError, Reason, RefusedError, UnavailableError
from tests.kit.cases.accounts import known, put_in_force
from tests.kit.cases.grants import POPULATION, a_connector, a_draft, a_person
from tests.kit.cases.registry import OTHER_USCC, USCC

pytestmark = pytest.mark.postgres

CALL = RequestContext(trace="0" * 32, client="test")
REFUSAL = Details(clause="政务数据共享条例 第二十一条", ground=Ground.OUT_OF_DUTY)
AUTHORITY = a_person(Role.DATA_AUTHORITY, name="authority")


def schema(doc: str = "") -> str:
    text = {"zh": "姓名", "level": "G2", "personal": "P", "sensitive": "N", "mask": "none"}
    fields = [{"name": "id_number", "type": "string", **text}, {"name": "full_name", "type": "string", **text}]
    if doc:
        fields[1]["doc"] = doc
    return json.dumps({"type": "record", "name": "Person", "zh": "人", "fields": fields, "key": ["id_number"]})


@pytest.fixture
def app(tmp_path: Path, database: sa.URL, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    monkeypatch.setenv("POOL_DATABASE", database.render_as_string(hide_password=False))
    config = initialise(tmp_path / "pool", pool_id="city", database="${env:POOL_DATABASE}")
    app = App.open(config)
    yield app
    app.close()


def department(app: App, uscc: str, short_name: str) -> str:
    registered = app.pool.administration.register_department(
        AUTHORITY, CALL, uscc=uscc, name=short_name, short_name=short_name, level=GovernmentLevel.CITY,
        division_code="310100",
    )  # fmt: skip
    return registered.id


@pytest.fixture
def requested(app: App) -> tuple[Grant, Actor, Actor]:
    """A request for two fields of a published resource, and the head of the provider's office, who may approve it."""
    provider = department(app, USCC, "公安")
    consumer = department(app, OTHER_USCC, "人社")
    head = a_person(Role.SHARING_OFFICE_HEAD, provider, name="head")
    entry = CatalogueEntry(
        topic=POPULATION, code="101001/000001", title="人口", provider=provider,
        share_type=ShareType.CONDITIONAL, share_scope="市级", use_purpose="社会保险",
        level=Level.G4,
    )  # fmt: skip
    editor = a_person(Role.CATALOGUE_EDITOR, provider, name="editor")
    app.pool.administration.draft_entry(editor, CALL, entry)
    app.pool.administration.register_schema(editor, CALL, POPULATION, schema())
    put_in_force(app, POPULATION)
    now = datetime.now(UTC)
    draft = a_draft(
        fields=("id_number", "full_name"), masks=(), row_filter=None, not_before=now, expires=now + timedelta(days=30),
    )  # fmt: skip
    asker = a_person(Role.SHARING_OFFICE_HEAD, consumer, name="asker")
    known(app, head, editor, asker)
    return app.pool.grants.submit(asker, CALL, draft), head, editor


def refuse_entries(app: App, action: Action) -> None:
    """Let PostgreSQL refuse the entry of an action, as a full disk does."""
    with app.engines[0].begin() as connection:
        connection.execute(
            sa.text(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                f"IF NEW.action = '{action.value}' THEN RAISE EXCEPTION 'full' USING ERRCODE = '53100'; END IF; "
                "RETURN NEW; END $$"
            )
        )
        connection.execute(
            sa.text("CREATE TRIGGER refuse BEFORE INSERT ON audit_entry FOR EACH ROW EXECUTE FUNCTION refuse()")
        )


def take_entries_again(app: App) -> None:
    with app.engines[0].begin() as connection:
        connection.execute(sa.text("DROP TRIGGER refuse ON audit_entry"))


def state(app: App, grant_id: str) -> str:
    with app.engines[0].connect() as connection:
        return str(
            connection.execute(sa.text("SELECT state FROM access_grant WHERE id = :id"), {"id": grant_id}).scalar_one()
        )


def views(app: App) -> int:
    with app.engines[0].connect() as connection:
        found = connection.execute(sa.text("SELECT count(*) FROM registry_version WHERE subject LIKE 'view.%'"))
        return int(found.scalar_one())


def test_an_approval_whose_entry_failed_leaves_no_view_and_is_finished_after_another_schema(
    app: App, requested: tuple[Grant, Actor, Actor]
) -> None:
    grant, head, editor = requested
    refuse_entries(app, Action.GRANT_PROVISION)
    with pytest.raises(UnavailableError):
        app.pool.grants.approve(head, CALL, grant.id)
    assert views(app) == 0, "the act was rolled back, and its view must be with it"
    take_entries_again(app)
    assert state(app, grant.id) == "submitted", "neither is approved alone"
    app.pool.administration.register_schema(editor, CALL, POPULATION, schema(doc="as in the passport"))
    active = app.pool.grants.approve(head, CALL, grant.id)
    assert active.state is GrantState.ACTIVE
    assert active.view_schema_id is not None
    assert views(app) == 1


def test_an_approval_that_became_impossible_leaves_the_request_to_be_rejected(
    app: App, requested: tuple[Grant, Actor, Actor]
) -> None:
    """Approved alone, it could be neither activated nor ended: the schema has lost a field that was asked for."""
    grant, head, editor = requested
    refuse_entries(app, Action.GRANT_PROVISION)
    with pytest.raises(UnavailableError):
        app.pool.grants.approve(head, CALL, grant.id)
    take_entries_again(app)
    narrower = json.loads(schema())
    del narrower["fields"][1]
    app.pool.administration.register_schema(editor, CALL, POPULATION, json.dumps(narrower))
    with pytest.raises(InvalidError, match="full_name"):
        app.pool.grants.approve(head, CALL, grant.id)
    assert state(app, grant.id) == "submitted"
    rejected = app.pool.grants.change(head, CALL, grant.id, Event.REJECT, reason="the field is gone", details=REFUSAL)
    assert rejected.state is GrantState.REJECTED


@pytest.mark.parametrize(
    ("reason", "refusal", "expected"),
    [
        ("out of duty", Details(), Reason.CLAUSE_MISSING),
        ("out of duty", replace(REFUSAL, clause=" "), Reason.CLAUSE_MISSING),
        ("", REFUSAL, Reason.CLAUSE_MISSING),
        ("out of duty", replace(REFUSAL, ground=None), Reason.REQUEST_INVALID),
    ],
)
def test_a_refusal_without_reason_clause_or_ground_is_refused_and_in_the_log(
    app: App, requested: tuple[Grant, Actor, Actor], reason: str, refusal: Details, expected: Reason
) -> None:
    grant, head, _ = requested
    with pytest.raises(InvalidError) as caught:
        app.pool.grants.change(head, CALL, grant.id, Event.REJECT, reason=reason, details=refusal)
    assert caught.value.reason is expected
    assert state(app, grant.id) == "submitted"
    assert expected.value in leaves(app, Action.GRANT_REJECT)[-1]


def test_a_refusal_s_clause_and_ground_are_in_its_entry(app: App, requested: tuple[Grant, Actor, Actor]) -> None:
    grant, head, _ = requested
    app.pool.grants.change(head, CALL, grant.id, Event.REJECT, reason="out of duty", details=REFUSAL)
    data = json.loads(leaves(app, Action.GRANT_REJECT)[-1])["data"]
    assert {name: data[name] for name in ("clause", "ground", "reason", "state", "events", "article")} == {
        "clause": REFUSAL.clause, "ground": "out_of_duty", "reason": "out of duty", "state": "rejected",
        "events": ["reject"], "article": "Art. 21",
    }  # fmt: skip
    clock = data["clock"]
    assert (clock["rule"], clock["profile"], clock["profile_version"]) == ("reply.conditional", "809", 1)
    assert clock["late"] is False


def leaves(app: App, action: Action) -> list[str]:
    """Return the leaves of the entries of an action, oldest first."""
    statement = sa.text("SELECT leaf FROM audit_entry WHERE action = :action ORDER BY at, id")
    with app.engines[0].connect() as connection:
        return [bytes(leaf).decode() for leaf in connection.execute(statement, {"action": str(action)}).scalars()]


def may(app: App, actor: Actor, grant: Grant) -> dict[str, str]:
    """Return what an actor may do: allowed, or why not."""
    found = app.pool.grant_permissions.permissions(actor, CALL, grant.id)
    return {str(one.event): "allowed" if one.allowed else str(one.reason) for one in found}


def test_what_may_be_done_is_what_the_acts_themselves_say(app: App, requested: tuple[Grant, Actor, Actor]) -> None:
    grant, head, editor = requested
    asker = a_person(Role.SHARING_OFFICE_HEAD, grant.consumer, name="asker")
    both = a_person(Role.SHARING_OFFICE_HEAD, grant.provider, name="both")
    known(app, both, AUTHORITY)
    impossible = "transition_not_allowed"
    assert may(app, head, grant) == {
        "confirm": "role_missing", "approve": "allowed", "withdraw_signature": "role_missing", "need_more": "allowed",
        "resubmit": "grant_other_consumer", "withdraw": "grant_other_consumer", "extend": "role_missing",
        "reject": "allowed", "dispute": "grant_other_consumer", "uphold": "role_missing", "overturn": "role_missing",
        "suspend": impossible, "rectified": impossible, "terminate": impossible, "complete": "grant_other_consumer",
        "change_service": impossible, "terminate_by_agreement": impossible,
    }  # fmt: skip
    assert {event for event, answer in may(app, asker, grant).items() if answer == "allowed"} == {"withdraw"}
    assert may(app, AUTHORITY, grant)["extend"] == "allowed"
    assert may(app, asker, grant)["approve"] == "not_provider"
    assert set(may(app, editor, grant).values()) == {"role_missing"}
    assert may(app, AUTHORITY, grant)["suspend"] == impossible
    assert state(app, grant.id) == "submitted", "nothing is carried out"
    app.pool.grants.approve(head, CALL, grant.id)
    assert [event for event, answer in may(app, both, grant).items() if answer == "allowed"] == [
        "suspend", "change_service", "terminate_by_agreement",
    ]  # fmt: skip
    stranger = a_person(Role.SHARING_OFFICE_HEAD, "d-other", name="stranger")
    with pytest.raises(RefusedError):
        may(app, stranger, grant)


def test_an_approval_that_the_schema_makes_impossible_is_not_offered(
    app: App, requested: tuple[Grant, Actor, Actor]
) -> None:
    grant, head, editor = requested
    narrower = json.loads(schema())
    del narrower["fields"][1]
    app.pool.administration.register_schema(editor, CALL, POPULATION, json.dumps(narrower))
    assert may(app, head, grant)["approve"] == "field_unknown"
    assert may(app, head, grant)["reject"] == "allowed"


def test_counts_are_of_what_the_caller_may_see_and_leave_no_entry(
    app: App, requested: tuple[Grant, Actor, Actor]
) -> None:
    grant, head, _ = requested
    asker = a_person(Role.SHARING_OFFICE_HEAD, grant.consumer, name="asker")

    def entries() -> int:
        with app.engines[0].connect() as connection:
            return int(connection.execute(sa.text("SELECT count(*) FROM audit_entry")).scalar_one())

    before = entries()
    for actor in (head, asker, AUTHORITY):
        assert app.pool.grant_reads.counts(actor, CALL) == {GrantState.SUBMITTED: 1}
    assert entries() == before
    with pytest.raises(RefusedError):
        app.pool.grant_reads.counts(a_connector(grant.consumer), CALL)


def test_an_account_sees_itself_and_its_rights(app: App, requested: tuple[Grant, Actor, Actor]) -> None:
    _, head, _ = requested
    assert app.pool.accounts.own(head, CALL).account.name == "head"
    rights = rights_of(Role.SHARING_OFFICE_HEAD)
    assert rights[Action.GRANT_APPROVE] is Scope.PROVIDER
    assert Action.FETCH not in rights
    assert set(rights_of(Role.AUDITOR)) & FORBIDDEN[Role.AUDITOR] == set()
