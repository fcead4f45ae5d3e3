"""A number of a person in a free text: refused by every interface before anything is stored, and left in no trace.

Each test sends an invented identity number (or a mobile or bank card number) in one place, and then looks for it in the
database, the log's folder, the pool's own log and the answer.
"""

import ssl
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args
from urllib.parse import quote

import grpc
import httpx
import psycopg2
import pytest
from fastapi.routing import APIRoute
from google.rpc import error_details_pb2, status_pb2
from pydantic import BaseModel

from exchange.api.http import ROUTERS
from exchange.demo.people import persons
from schemas import library
from schemas.errors import PoolError, Reason
from schemas.names import Topic
from schemas.proto.pool.v1 import exchange_pb2 as wire
from schemas.proto.pool.v1 import exchange_pb2_grpc as stubs
from tests.kit.patience import PATIENCE, wait_for
from tests.kit.world.world import Office, World

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

NUMBER = str(next(iter(persons(1)))["id_number"])  # invented
WIDE = NUMBER.translate(str.maketrans("0123456789X", "０１２３４５６７８９Ｘ"))
SPACED = f"{NUMBER[:6]} {NUMBER[6:14]}-{NUMBER[14:]}"
LINES = "\n".join((NUMBER[:6], NUMBER[6:14], NUMBER[14:]))
UNSEEN = "\u034f".join(NUMBER)
KEYCAPS = "".join(f"{each}\ufe0f\u20e3" for each in NUMBER)
DISGUISED = (WIDE, SPACED, LINES, UNSEEN, KEYCAPS)
TOPIC = Topic.parse("population.v1")
FORMS = 'case_forms = { supervision = "YB-{YYYY}{MM}{DD}-{N6}" }\n'
TERMS = {"purpose": "eligibility", "case": "STANDING-1"}
# Members of bodies that are no free text (`exchange.authorization.text_screen.NOT_SCREENED`) or a closed list of words.
# A position is sealed, and stored nowhere as it was sent; what a ticket claims is stored sealed alone.
EXEMPT = {
    "SchemaBody.text",
    "ErasureBody.key",
    "FetchBody.position",
    "CommitBody.position",
    "TicketBody.claimed",
    "TicketBody.claim_evidence",
}


class _World(World):
    """A pool whose configuration has more at its top level."""

    def initialise(self) -> None:
        super().initialise()
        config = self.data / "pool.toml"
        # These tests have more texts refused than an account may in a minute.
        config.write_text(f"{FORMS}{config.read_text()}\n[limits]\nrefusals_per_minute = 10000\n")


@dataclass
class City:
    world: World
    office: Office
    grant: str
    stub: Any

    def call(self, method: str, **fields: Any) -> Reason | None:
        header = wire.RequestHeader(
            purpose=fields.pop("purpose", TERMS["purpose"]),
            case_number=fields.pop("case", TERMS["case"]),
            on_behalf_of=fields.pop("on_behalf_of", ""),
            trace_id=fields.pop("trace", ""),
            client_version=fields.pop("client", "test"),
        )
        request = getattr(wire, f"{method}Request")(header=header, **fields)
        try:
            getattr(self.stub, method)(request)
        except grpc.RpcError as caught:
            error: Any = caught
        else:
            return None
        assert not any(one in str(error) for one in (NUMBER, *DISGUISED))
        status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
        info = error_details_pb2.ErrorInfo()
        assert status.details[0].Unpack(info)
        return Reason(info.reason)

    def reason(self, path: str, body: dict[str, Any]) -> Reason:
        """Return why a connector's call over HTTPS is refused."""
        context = ssl.create_default_context(cafile=str(self.world.data / "ca" / "authority.crt"))
        folder = self.world.folder / "identities" / self.office.id / "sink"
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        url = f"https://{self.world.addresses['http']}/v1{path}"
        answer = httpx.post(url, json=body, verify=context, timeout=PATIENCE)
        assert not any(one in answer.text for one in (NUMBER, *DISGUISED))
        return Reason(answer.json()["reason"])

    def traces(self, *texts: str) -> list[str]:
        """Return where the texts are: tables of the database, files of the log, the pool's own log."""
        found: list[str] = []
        sought = [f"%{one}%" for one in (*texts, *(text.encode().hex() for text in texts))]
        connection = psycopg2.connect((self.world.data / "database-url").read_text().strip().replace("+psycopg2", ""))
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
                for (table,) in cursor.fetchall():
                    cursor.execute(f'SELECT count(*) FROM "{table}" t WHERE t::text LIKE ANY(%s)', (sought,))
                    found += [table for (count,) in cursor.fetchall() if count]
        finally:
            connection.close()
        files = [path for path in (self.world.data / "log").rglob("*") if path.is_file()]
        for path in [*files, self.world.folder / "pool.log"]:
            content = path.read_bytes()
            found += [path.name] * any(one.encode() in content for one in texts)
        return found


@pytest.fixture(scope="module")
def city() -> Iterator[City]:
    with _World.start() as world:
        provider, consumer = world.department("公安局"), world.department("人社局")
        provider.offer(str(TOPIC), library.text("population"))
        grant = consumer.request(str(TOPIC), ["full_name"])
        provider.approve(grant)
        identity = consumer.enrol("sink")
        credentials = grpc.ssl_channel_credentials(identity.authority, identity.key, identity.certificate)
        with grpc.secure_channel(world.addresses["gateway"], credentials) as channel:
            yield City(world, consumer, grant, stubs.ExchangeStub(channel))


@pytest.mark.parametrize("text", [NUMBER, f"查{NUMBER}号", *DISGUISED, "13800138000", "6222 0212 3456 7890 128"])
@pytest.mark.parametrize("field", ["case", "purpose", "on_behalf_of"])
@pytest.mark.parametrize("method", ["Fetch", "Describe", "Commit"])
def test_what_a_connector_declares(city: City, method: str, field: str, text: str) -> None:
    assert city.call(method, grant_id=city.grant, **{field: text}) is Reason.PERSONAL_NUMBER
    denials = city.world.root.get("/audit/entries", {"department": city.office.id, "decision": "deny", "limit": 100})
    assert Reason.PERSONAL_NUMBER in {one["entry"]["reason"] for one in denials}


def test_a_topic_a_trace_and_a_program_s_name(city: City) -> None:
    topic = f"x{NUMBER.lower()}.v1"
    assert city.call("Resume", topic=topic) is not None
    assert city.call("Schema", topic=topic) is not None
    assert city.call("Hello", client=f"sink/{NUMBER}") is Reason.PERSONAL_NUMBER
    assert city.call("Hello", trace=NUMBER[:17] + "0" * 15) is None
    assert city.call("Hello", trace=(NUMBER + "0" * 14)[:32].lower()) is None


def test_a_case_number_of_an_office_passes(city: City) -> None:
    """It is another than the grant's, which is what the pool answers."""
    for case in ("2026110100001234", "(2026)浙01行初0042号", "HZ-2026-000123", "2026-11-01-0001"):
        assert city.call("Fetch", grant_id=city.grant, case=case) is Reason.CASE_MISMATCH


def test_where_a_purpose_states_a_form_only_the_form_counts(city: City) -> None:
    accepted = {"purpose": "supervision", "grant_id": city.grant}
    assert city.call("Fetch", case="YB-20261101-000123", **accepted) is Reason.PURPOSE_MISMATCH
    for case in ("STANDING-1", f"YB-{NUMBER}", NUMBER, "YB-20261301-000123", "YB-20261101-000123 "):
        assert city.call("Fetch", case=case, **accepted) is Reason.CASE_FORM_MISMATCH
    forms = {one["id"]: one["case_form"] for one in city.world.root.get("/purposes")}
    assert forms["supervision"] == "YB-{YYYY}{MM}{DD}-{N6}"
    assert forms["eligibility"] is None


def _bodies() -> dict[str, tuple[str, str, type[BaseModel]]]:
    """Return every text member of every body of the control API, by route."""
    found = {}
    for route in (route for one in ROUTERS for route in one.routes):
        if not isinstance(route, APIRoute) or route.body_field is None:
            continue
        model = route.body_field.field_info.annotation
        assert isinstance(model, type)
        assert issubclass(model, BaseModel)
        for name, info in model.model_fields.items():
            is_text = info.annotation is str or str in get_args(info.annotation)
            if is_text and f"{model.__name__}.{name}" not in EXEMPT:
                found[f"{route.path} {name}"] = (route.path, name, model)
    return found


BODIES = _bodies()


def test_the_bodies_are_found() -> None:
    assert {"/v1/grants/{grant_id}/{event} reason", "/v1/requests case", "/v1/catalogue title"} <= BODIES.keys()
    assert {"/v1/records/fetch case", "/v1/records/fetch grant", "/v1/records/commit purpose"} <= BODIES.keys()


@pytest.mark.parametrize("which", sorted(BODIES))
def test_each_text_of_each_body(city: City, which: str) -> None:
    path, name, model = BODIES[which]
    body: dict[str, Any] = {field: "x" for field, info in model.model_fields.items() if info.is_required()}
    path = path.removeprefix("/v1").replace("{grant_id}", city.grant).replace("{event}", "suspend")
    path = path.replace("{department}", city.office.id).replace("{topic}", str(TOPIC))
    for text in (NUMBER, f"关于{WIDE}的", *DISGUISED[1:]):
        if path.startswith("/records/"):  # of a connector, which shows its certificate
            assert city.reason(path, body | {name: text}) is Reason.PERSONAL_NUMBER
            continue
        with pytest.raises(PoolError) as caught:
            city.world.root.post(path, body | {name: text})
        assert caught.value.reason is Reason.PERSONAL_NUMBER
        assert text not in str(caught.value)
    refused = city.world.root.get("/audit/entries", {"action": "pool:request:screen", "limit": 100})
    # An entry that counts what came again within a minute names no single call.
    data = next(one["entry"]["data"] for one in refused if "folded" not in one["entry"]["data"])
    assert data["holds"] == "identity number"


@pytest.mark.parametrize(
    "path",
    [
        f"/grants/{NUMBER}/approval",
        f"/audit/entries/{NUMBER}",
        f"/audit/entries?case={NUMBER}",
        f"/audit/entries?resource={quote(WIDE)}",
        f"/audit/entries?purpose=supervision&case={NUMBER}",
        f"/catalogue/x{NUMBER}.v1/publication",
    ],
)
@pytest.mark.parametrize("known", [True, False], ids=["known caller", "unknown caller"])
def test_a_path_of_the_control_api(city: City, path: str, known: bool) -> None:
    token = city.world.root._headers["authorization"].removeprefix("Bearer ") if known else "wrong"
    url = f"https://{city.world.addresses['http']}/v1{path}"
    method = "GET" if "/audit/" in path else "POST"
    with httpx.Client(verify=_trust(city)) as http:
        answer = http.request(method, url, headers={"authorization": f"Bearer {token}"})
    expected = {True: {Reason.PERSONAL_NUMBER, Reason.CASE_FORM_MISMATCH}, False: {Reason.TOKEN_INVALID}}[known]
    assert answer.json()["reason"] in expected
    assert NUMBER not in answer.text
    assert WIDE not in answer.text


def _trust(city: City) -> Any:

    return ssl.create_default_context(cafile=str(city.world.data / "ca" / "authority.crt"))


def registry(city: City, method: str, path: str, body: Any = None) -> httpx.Response:
    token = city.world.root._headers["authorization"].removeprefix("Bearer ")
    with httpx.Client(verify=_trust(city)) as http:
        url = f"https://{city.world.addresses['registry']}{path}"
        return http.request(method, url, headers={"authorization": f"Bearer {token}"}, json=body)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", f"/subjects/{NUMBER}/versions", None),
        ("GET", f"/subjects/{quote(WIDE)}-value/versions/latest", None),
        ("GET", f"/subjects?subjectPrefix={NUMBER}", None),
        ("POST", f"/subjects/{NUMBER}/versions", {"schema": '"string"'}),
        ("PUT", f"/config/{NUMBER}", {"compatibility": "FULL"}),
        ("POST", "/approvals", {"subject": f"{TOPIC}-value", "schema": '"string"', "reason": f"因{NUMBER}"}),
        ("POST", "/approvals", {"subject": f"{NUMBER}-value", "schema": '"string"', "reason": "because"}),
    ],
)
def test_a_path_or_a_reason_at_the_registry(city: City, method: str, path: str, body: Any) -> None:
    answer = registry(city, method, path, body)
    assert answer.status_code in {404, 422}
    assert NUMBER not in answer.text
    assert WIDE not in answer.text


def test_a_credit_code_and_ids_of_the_pool_pass(city: City) -> None:
    assert city.world.department("卫健委").id
    assert city.world.root.get("/audit/entries", {"grant": city.grant, "limit": 1})
    assert city.office.account("security_officer").get("/grants")


def test_the_entries_of_the_log_are_not_for_every_user_of_the_machine(city: City) -> None:
    modes = file_modes(city.world.data / "log")
    assert modes["tile/entries"] == {0o640}
    assert modes["tile/0"] == {0o644}
    assert modes["checkpoint"] == {0o644}


def test_no_trace_of_all_that_was_sent_is_left(city: City) -> None:
    """The last one that sends something: in no table, in no file of the log, in no line of the pool's own log."""
    assert city.call("Fetch", grant_id=city.grant, case=NUMBER) is Reason.PERSONAL_NUMBER
    assert city.call("Fetch", grant_id=city.grant, purpose="research") is Reason.PURPOSE_MISMATCH
    with pytest.raises(PoolError):
        city.world.root.post(f"/grants/{city.grant}/suspend", {"reason": WIDE})
    newest = city.world.root.get("/audit/entries", {"limit": 1})[0]["entry"]["id"]
    wait_for(lambda: city.world.root.get(f"/audit/entries/{newest}")["proof"] == "signed", "signed")
    assert city.world.root.get("/audit/entries", {"action": "pool:request:screen", "limit": 1})
    assert {"audit_entry", "access_grant"} <= {*city.traces("STANDING-1")}, "what is stored is found"
    assert city.traces(NUMBER, *DISGUISED) == []


def test_the_folder_of_an_earlier_version_is_closed_at_the_start(city: City) -> None:
    entries = city.world.data / "log" / "tile" / "entries"
    entries.chmod(0o755)
    for path in entries.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    city.world.stop()
    city.world.serve()
    assert file_modes(city.world.data / "log")["tile/entries"] == {0o640}
    assert stat.S_IMODE(entries.stat().st_mode) == 0o750


def file_modes(log: Path) -> dict[str, set[int]]:
    """Return the modes of the log's files by the folder of their level."""
    found: dict[str, set[int]] = {}
    for path in log.rglob("*"):
        if path.is_file():
            level = "/".join(path.relative_to(log).parts[:2]) if path.parent != log else path.name
            found.setdefault(level, set()).add(stat.S_IMODE(path.stat().st_mode))
    return found
