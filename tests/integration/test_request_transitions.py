"""The law of requests as the pool carries it out: every transition by its article, stored, in the log, and in force."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from exchange.access.decision.grant_rules import Event
from exchange.access.grants.store import GrantQuery
from exchange.authorization.request_context import RequestContext
from exchange.control.grants.submission import Asked, Supplement
from exchange.deadlines.clock import DueState
from exchange.requests import model
from exchange.requests.details import Details, DisposalCertificate
from exchange.requests.model import Ground, Office, RequestState, ShareRequest
from exchange.requests.rules import REQUEST_RULES, RequestRule
from exchange.server import composition
from exchange.server.composition import App
from exchange.server.initialise import initialise
from registry.database.damaged_row import DamagedRow
from registry.directory.model import CatalogueEntry, GovernmentLevel, ShareType
from schemas.access import Actor, Grant, GrantState, Level, Role
from schemas.errors import PoolError, Reason
from schemas.names import Topic
from tests.kit.cases.accounts import known, put_in_force
from tests.kit.cases.grants import POPULATION, a_draft, a_person
from tests.kit.cases.registry import OTHER_USCC, USCC
from tests.kit.world import postgres

pytestmark = pytest.mark.postgres
E, S = model.Event, model.RequestState
CALL = RequestContext(trace="0" * 32, client="test")
AUTHORITY = a_person(Role.DATA_AUTHORITY, name="authority")
FREE, CLOSED = Topic.parse("weather.v1"), Topic.parse("secrets.v1")
LAW = {"reason": "because", "details": Details(clause="条例 第二十一条", ground=Ground.OUT_OF_DUTY)}
CERTIFICATE = DisposalCertificate(number="XH-7", date="2026-05-04", method="覆写", person="保密办 王")
SAID: dict[model.Event, dict[str, Any]] = {
    E.NEED_MORE: {"details": Details(missing=("the article of the law", "the unit that uses the records"))},
    E.EXTEND: {"reason": "three systems have to be asked", "details": Details(days=10)},
    E.REJECT: LAW,
    E.UPHOLD: LAW,
    E.OVERTURN: {"reason": "the duty is on the list"},
    E.DISPUTE: {"details": Details(reference="minutes-7")},
    E.WITHDRAW: {},
    E.WITHDRAW_SIGNATURE: {"reason": "the scope was misread"},
    E.SUSPEND: {"reason": "passed on"},
    E.RECTIFIED: {"reason": "taken back"},
    E.TERMINATE: {"reason": "not taken back"},
    E.COMPLETE: {"reason": "the matter is done", "details": Details(certificate=CERTIFICATE)},
    E.CHANGE_SERVICE: {"reason": "a new system", "details": Details(reference="filing-1")},
    E.TERMINATE_BY_AGREEMENT: {"reason": "the source ends", "details": Details(reference="filing-2")},
}


class Clock:
    """The database's clock, ahead by *ahead*."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self, reader: object) -> datetime:
        del reader
        return datetime.now(UTC) + self.ahead


class Stage:
    """A pool with three resources, one of each share type, and the people around a request."""

    def __init__(self, app: App, clock: Clock) -> None:
        self.app, self.clock, self.grants = app, clock, app.pool.grants
        self.grants._sleep = lambda _: None
        self.provider, self.consumer = self._department(USCC, "公安"), self._department(OTHER_USCC, "人社")
        self.editor = a_person(Role.CATALOGUE_EDITOR, self.provider, name="editor")
        self.head = a_person(Role.SHARING_OFFICE_HEAD, self.provider, name="head")
        self.officer = a_person(Role.SECURITY_OFFICER, self.provider, name="officer")
        self.asker = a_person(Role.SHARING_OFFICE_HEAD, self.consumer, name="asker")
        known(app, self.editor, self.head, self.officer, self.asker, AUTHORITY)
        self._offer(POPULATION, ShareType.CONDITIONAL, share_scope="市级", use_purpose="社会保险")
        self._offer(FREE, ShareType.UNCONDITIONAL)
        self._offer(CLOSED, ShareType.NONE, refuse_reason="国家秘密", legal_basis="保守国家秘密法 第二条")
        self.people: dict[model.Event, Actor] = {
            **dict.fromkeys((E.EXTEND, E.UPHOLD, E.OVERTURN), AUTHORITY),
            **dict.fromkeys((E.WITHDRAW, E.DISPUTE, E.COMPLETE), self.asker),
        }

    def _department(self, uscc: str, name: str) -> str:
        return self.app.pool.administration.register_department(
            AUTHORITY, CALL, uscc=uscc, name=name, short_name=name, level=GovernmentLevel.CITY, division_code="310100"
        ).id

    def _offer(self, topic: Topic, share_type: ShareType, **members: Any) -> None:
        fields = [
            {"name": name, "type": "string", "zh": name, "level": level, "personal": "N", "sensitive": "N",
             "mask": "none"}
            for name, level in (("number", "G2"), ("salary", "G4"))
        ]  # fmt: skip
        schema = {"type": "record", "name": "One", "zh": "项", "fields": fields, "key": ["number"]}
        code = f"101001/00000{1 + [POPULATION, FREE, CLOSED].index(topic)}"
        entry = CatalogueEntry(
            topic=topic, code=code, title="项", provider=self.provider, share_type=share_type, level=Level.G4, **members
        )
        pool = self.app.pool.administration
        pool.draft_entry(self.editor, CALL, entry)
        pool.register_schema(self.editor, CALL, topic, json.dumps(schema))
        put_in_force(self.app, topic)

    def submit(self, *fields: str, topic: Topic = POPULATION, asked: Asked | None = None) -> Grant:
        now = self.clock(None)
        draft = a_draft(
            topic=topic, fields=fields or ("number",), masks=(), row_filter=None, not_before=now,
            expires=now + timedelta(days=300),
        )  # fmt: skip
        return self.grants.submit(self.asker, CALL, draft, asked or Asked())

    def change(self, grant: Grant, event: model.Event, *, by: Actor | None = None, **said: Any) -> Grant:
        actor = by or self.people.get(event, self.head)
        return self.grants.change(actor, CALL, grant.id, Event(event.value), **(said or SAID[event]))

    def come_to(self, state: RequestState, *, sensitive: bool = False) -> Grant:
        """Return a request that came to a state by a short way."""
        grant = self.submit(*(("number", "salary") if sensitive else ()))
        ways: dict[RequestState, Callable[[], object]] = {
            S.SUBMITTED: lambda: None,
            S.SUPPLEMENT: lambda: self.change(grant, E.NEED_MORE),
            S.COUNTERSIGNED: lambda: self.grants.approve(self.head, CALL, grant.id),
            S.APPROVED: lambda: (
                self.grants.approve(self.head, CALL, grant.id),
                self.grants.countersign(self.officer, CALL, grant.id),
            ),
            S.ACTIVE: lambda: self.grants.approve(self.head, CALL, grant.id),
            S.SUSPENDED: lambda: (self.grants.approve(self.head, CALL, grant.id), self.change(grant, E.SUSPEND)),
            S.REJECTED: lambda: self.change(grant, E.REJECT),
            S.IN_DISPUTE: lambda: (self.change(grant, E.REJECT), self.change(grant, E.DISPUTE)),
        }
        ways[state]()
        assert self.request(grant).state is state
        return grant

    def request(self, grant: Grant) -> ShareRequest:
        with self.app.pool.database.read() as reader:
            return self.grants.law.requests.of(reader, self.grants._access.get(reader, grant.id))

    def current(self, grant: Grant) -> Grant:
        with self.app.pool.database.read() as reader:
            return self.grants._access.get(reader, grant.id)

    def entries(self, grant: Grant) -> list[dict[str, Any]]:
        """Return the entries that name a grant, oldest first."""
        with self.app.engines[0].connect() as connection:
            leaves = connection.execute(sa.text("SELECT leaf FROM audit_entry ORDER BY at, id")).scalars().all()
        found = [json.loads(bytes(leaf)) for leaf in leaves if grant.id.encode() in bytes(leaf)]
        return [one for one in found if one["decision"] == "allow"]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory, postgres_server: sa.URL) -> Iterator[Stage]:
    clock = Clock()
    with postgres.fresh_database(postgres_server) as url, pytest.MonkeyPatch.context() as patch:
        patch.setattr(composition, "_database_clock", clock)
        patch.setenv("POOL_DATABASE", url.render_as_string(hide_password=False))
        folder = tmp_path_factory.mktemp("requests") / "pool"
        app = App.open(initialise(folder, pool_id="city", database="${env:POOL_DATABASE}"))
        yield Stage(app, clock)
        app.close()


@pytest.fixture
def stage(opened: Stage) -> Iterator[Stage]:
    yield opened
    opened.clock.ahead = timedelta()


def refused(act: Callable[[], object]) -> Reason:
    with pytest.raises(PoolError) as caught:
        act()
    return caught.value.reason


def overturned(stage: Stage) -> Grant:
    grant = stage.come_to(S.IN_DISPUTE)
    stage.change(grant, E.OVERTURN)
    return grant


def carried_out(stage: Stage, rule: RequestRule) -> Grant:
    """Carry an event of a row out through the services; return its grant."""
    if rule.source is S.DRAFT:
        return stage.submit()
    sensitive = rule.source in {S.COUNTERSIGNED, S.APPROVED} or rule.event in {E.APPROVE, E.COUNTERSIGN}
    by = None
    if rule.overturned or rule.event is E.CONCLUDE:
        grant, by = overturned(stage), AUTHORITY
    else:
        grant = stage.come_to(rule.source, sensitive=sensitive or rule.event is E.WITHDRAW_SIGNATURE)
    if (rule.event, rule.source) == (E.WITHDRAW_SIGNATURE, S.SUBMITTED):
        stage.grants.countersign(stage.officer, CALL, grant.id)
        by = stage.officer
    if rule.event is E.DISPUTE and rule.source is S.SUBMITTED:
        stage.clock.ahead = timedelta(days=60)
    match rule.event:
        case E.LAPSE | E.OVERDUE | E.EXPIRE:
            stage.clock.ahead = timedelta(days=400 if rule.event is E.EXPIRE else 60)
            stage.app.pool.request_clocks.run()
            stage.grants.expire()
        case E.RESUBMIT:
            stage.grants.resubmit(stage.asker, CALL, grant.id, Supplement(legal_basis="社会保险法 第七十四条第一款"))
        case E.APPROVE | E.CONCLUDE | E.PROVISION:
            stage.grants.approve(by or stage.head, CALL, grant.id)
        case E.COUNTERSIGN:
            stage.grants.countersign(stage.officer, CALL, grant.id)
        case event:
            stage.change(grant, event, by=by)
    return grant


@pytest.mark.parametrize("rule", REQUEST_RULES, ids=lambda rule: f"{rule.source}-{rule.event}-{rule.target}")
def test_each_transition_is_carried_out_stored_by_its_article_and_in_the_log(stage: Stage, rule: RequestRule) -> None:
    grant = carried_out(stage, rule)
    request, current = stage.request(grant), stage.current(grant)
    steps = [step for step in request.history if (step.event, step.state) == (rule.event, rule.target)]
    assert steps, [str(step.event) for step in request.history]
    assert steps[-1].article == rule.article
    assert steps[-1].profile == "809/1 gf2016-51/1 general/1"
    assert current.state.value == request.state.value
    entries = stage.entries(grant)
    told = [one for one in entries if str(rule.event) in one.get("data", {}).get("events", [])]
    assert told, [one["action"] for one in entries]
    assert told[-1]["grant"]["version"] <= current.version
    if rule.event is E.OVERDUE:
        assert told[-1]["data"]["violation"] == "Art. 39(4)"
        assert (told[-1]["data"]["clock"]["profile"], told[-1]["data"]["clock"]["rule"]) in {
            ("809", "reply.conditional"), ("809", "delivery"),
        }  # fmt: skip


def test_a_request_of_one_share_type_is_decided_by_that_type(stage: Stage) -> None:
    free = stage.submit(topic=FREE)
    bound = stage.submit()
    due = {one.request.id: one for one in listed(stage)}
    assert due[free.id].deadline.day < due[bound.id].deadline.day  # type: ignore[union-attr]
    assert refused(lambda: stage.change(free, E.EXTEND)) is Reason.TRANSITION_NOT_ALLOWED
    unfit = Details(clause="条例", ground=Ground.CONDITIONS_NOT_MET)
    assert refused(lambda: stage.change(free, E.REJECT, reason="no", details=unfit)) is Reason.REQUEST_INVALID
    assert stage.grants.approve(stage.head, CALL, free.id).state is GrantState.ACTIVE
    with pytest.raises(PoolError, match="保守国家秘密法 第二条") as caught:
        stage.submit(topic=CLOSED)
    assert caught.value.reason is Reason.NOT_SHARED


def listed(stage: Stage, due: DueState | None = None) -> list[Any]:
    found = stage.app.pool.request_reads.page(stage.head, CALL, GrantQuery(), due=due)
    return [one for one in found if not isinstance(one, DamagedRow)]


def test_an_overdue_reply_opens_nothing_is_recorded_once_and_a_late_one_still_counts(stage: Stage) -> None:
    grant = stage.submit()
    assert grant.id not in {one.request.id for one in listed(stage, DueState.OVERDUE)}
    stage.clock.ahead = timedelta(days=60)
    stage.app.pool.request_clocks.run()
    assert grant.id in {one.request.id for one in listed(stage, DueState.OVERDUE)}
    version = stage.current(grant).version
    stage.app.pool.request_clocks.run()
    request = stage.request(grant)
    assert [step.event for step in request.history] == [E.SUBMIT, E.OVERDUE], "once"
    assert (stage.current(grant).state, stage.current(grant).version) == (GrantState.SUBMITTED, version)
    assert stage.grants.approve(stage.head, CALL, grant.id).state is GrantState.ACTIVE
    late = [step.event for step in stage.request(grant).history if step.late]
    assert late == [E.OVERDUE, E.CONCLUDE], "who was late is told, and the consumer is not punished"


def test_a_request_gets_one_list_and_its_supplement_takes_signatures_away(stage: Stage) -> None:
    grant = stage.submit("number", "salary")
    stage.grants.countersign(stage.officer, CALL, grant.id)
    stage.change(grant, E.NEED_MORE)
    answer = stage.grants.resubmit(stage.asker, CALL, grant.id, Supplement(fields=("salary",), scenario="核验"))
    assert (answer.state, answer.fields, answer.confirmed_by) == (GrantState.SUBMITTED, ("salary",), None)
    assert answer.requested_by == "asker"
    request = stage.request(grant)
    assert (request.fields, request.scenario, request.signatures) == (("salary",), "核验", ())
    assert refused(lambda: stage.change(grant, E.NEED_MORE)) is Reason.SUPPLEMENT_REPEATED
    wrong = Supplement(fields=("no_such_field",))
    assert refused(lambda: stage.grants.resubmit(stage.asker, CALL, grant.id, wrong)) is Reason.TRANSITION_NOT_ALLOWED


@pytest.mark.parametrize("officer_first", [True, False])
def test_what_shows_fields_of_level_four_takes_two_persons_in_either_order(stage: Stage, officer_first: bool) -> None:
    grant = stage.submit("number", "salary")
    if officer_first:
        assert stage.grants.countersign(stage.officer, CALL, grant.id).state is GrantState.SUBMITTED
        active = stage.grants.approve(stage.head, CALL, grant.id)
    else:
        assert stage.grants.approve(stage.head, CALL, grant.id).state is GrantState.COUNTERSIGNED
        assert refused(lambda: stage.grants.approve(stage.head, CALL, grant.id)) is Reason.CONFIRMATION_MISSING
        assert stage.grants.countersign(stage.officer, CALL, grant.id).state is GrantState.APPROVED
        active = stage.grants.approve(stage.head, CALL, grant.id)
    assert (active.state, active.approved_by, active.confirmed_by) == (GrantState.ACTIVE, "head", "officer")
    assert {one.office for one in stage.request(grant).signatures} == {Office.HEAD, Office.SECURITY_OFFICER}


def test_an_overturned_refusal_passes_countersigned_and_the_provider_provides(stage: Stage) -> None:
    grant = stage.come_to(S.IN_DISPUTE, sensitive=True)
    assert stage.change(grant, E.OVERTURN).state is GrantState.COUNTERSIGNED
    assert refused(lambda: stage.grants.approve(AUTHORITY, CALL, grant.id)) is Reason.CONFIRMATION_MISSING
    approved = stage.grants.countersign(stage.officer, CALL, grant.id)
    assert (approved.state, approved.approved_by) == (GrantState.APPROVED, "authority")
    assert refused(lambda: stage.grants.approve(AUTHORITY, CALL, grant.id)) is Reason.ROLE_MISSING
    assert stage.grants.approve(stage.head, CALL, grant.id).state is GrantState.ACTIVE


def test_one_person_under_two_accounts_signs_once_and_who_requested_or_supplemented_never(stage: Stage) -> None:
    twice = a_person(Role.SECURITY_OFFICER, stage.provider, name="head-as-officer")
    moved = a_person(Role.SHARING_OFFICE_HEAD, stage.provider, name="asker-as-head")
    known(stage.app, twice, moved)
    with stage.app.engines[0].connect() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM share_request")).scalar_one() > 0
    persons = {
        "head": "TEST-head",
        "head-as-officer": "TEST-head",
        "asker": "TEST-asker",
        "asker-as-head": "TEST-asker",
    }
    attributes = stage.grants._attributes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attributes, "persons", lambda *names: {one: persons.get(one, f"TEST-{one}") for one in names})
        grant = stage.submit("number", "salary")
        assert refused(lambda: stage.grants.approve(moved, CALL, grant.id)) is Reason.SAME_PERSON
        stage.grants.approve(stage.head, CALL, grant.id)
        assert refused(lambda: stage.grants.countersign(twice, CALL, grant.id)) is Reason.SAME_PERSON
        assert refused(lambda: stage.change(grant, E.REJECT, by=moved)) is Reason.SAME_PERSON
    with stage.app.engines[0].connect() as connection:
        leaves = connection.execute(sa.text("SELECT leaf FROM audit_entry WHERE reason = 'same_person'")).scalars()
        denied = {json.loads(bytes(leaf))["actor"]["id"] for leaf in leaves}
    assert {"asker-as-head", "head-as-officer"} <= denied


def test_a_grant_is_completed_with_a_whole_certificate_alone(stage: Stage) -> None:
    grant = stage.come_to(S.ACTIVE)
    for certificate in (None, replace(CERTIFICATE, person=" "), replace(CERTIFICATE, date="4 May")):
        said: dict[str, Any] = {"reason": "done", "details": Details(certificate=certificate)}
        assert refused(lambda said=said: stage.change(grant, E.COMPLETE, **said)) is Reason.REQUEST_INVALID  # type: ignore[misc]
    assert stage.change(grant, E.COMPLETE).state is GrantState.COMPLETED
    assert stage.entries(grant)[-1]["data"]["certificate"] == CERTIFICATE.to_json()
    assert stage.request(grant).history[-1].reference == "XH-7"


def test_a_grant_of_before_goes_on_by_the_law_of_today(stage: Stage) -> None:
    """A request whose row is not there was filed by the version before: its grant's row tells it."""
    waiting, active = stage.come_to(S.SUBMITTED), stage.come_to(S.ACTIVE)
    with stage.app.engines[0].begin() as connection:
        gone = connection.execute(
            sa.text("DELETE FROM share_request WHERE id IN (:a, :b)"), {"a": waiting.id, "b": active.id}
        )
        assert gone.rowcount == 2
    derived = stage.request(active)
    assert (derived.state, derived.history) == (S.ACTIVE, ())
    assert [one.account for one in derived.signatures] == ["head"]
    assert stage.change(waiting, E.NEED_MORE).state is GrantState.SUPPLEMENT
    assert stage.change(active, E.SUSPEND).state is GrantState.SUSPENDED
    assert stage.change(active, E.RECTIFIED).state is GrantState.ACTIVE
    assert [step.event for step in stage.request(active).history] == [E.SUSPEND, E.RECTIFIED]


def test_a_damaged_row_of_a_request_is_named_and_does_not_keep_its_grant_from_being_ended(stage: Stage) -> None:
    grant = stage.come_to(S.ACTIVE)
    with stage.app.engines[0].begin() as connection:
        forge = sa.text("UPDATE share_request SET text = replace(text, 'active', 'completed') WHERE id = :id")
        connection.execute(forge, {"id": grant.id})
    found = stage.app.pool.request_reads.page(stage.head, CALL, GrantQuery())
    assert grant.id in {one.cursor for one in found if isinstance(one, DamagedRow)}
    assert refused(lambda: stage.app.pool.request_reads.show(stage.head, CALL, grant.id)) is Reason.ROW_FORGED
    assert refused(lambda: stage.change(grant, E.COMPLETE)) is Reason.ROW_FORGED
    assert stage.change(grant, E.SUSPEND).state is GrantState.SUSPENDED
    assert stage.change(grant, E.TERMINATE).state is GrantState.TERMINATED


def test_a_statement_that_is_not_given_is_missing(stage: Stage) -> None:
    with pytest.raises(PoolError, match="truthful") as caught:
        stage.submit(asked=Asked(truthful=False))
    assert caught.value.reason is Reason.REQUEST_INVALID
