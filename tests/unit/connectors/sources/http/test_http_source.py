"""HTTP source against a real server: pages, what changed, credentials, limits; and what it refuses."""

import base64
import gzip
import json
import ssl
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from connectors.port import Replaces
from connectors.sources.http.http_client import Credentials, HttpSourceClient, OAuthClient
from connectors.sources.http.http_source import MAX_SPOOL, HttpRequest, HttpSource, Incremental, Paging
from connectors.sources.http.member_path import MemberPath
from schemas.errors import InvalidError, Reason, RefusedError, UnavailableError
from tests.kit.twins.http_server import Answer, Call, HttpServer, http_server

PEOPLE = [{"id": str(number), "name": f"人{number}", "at": f"2026-01-{number:02}T00:00:00Z"} for number in range(1, 8)]
FINGERPRINT = bytes(8)
Row = dict[str, str | None]


class Memory:
    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def meta(self, name: str) -> str:
        return self.values.get(name, "")

    def set_meta(self, **values: str) -> None:
        self.values |= values


class Stop:
    """Stands for the event that ends waits: keeps how long was waited, and lets the time pass."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self.now = 100.0

    def is_set(self) -> bool:
        return False

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        self.now += seconds
        return False

    def monotonic(self) -> float:
        return self.now


def answer(value: Any, **more: Any) -> Answer:
    return Answer(body=json.dumps(value, ensure_ascii=False).encode(), **more)


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with http_server(lambda _: answer(PEOPLE)) as made:
        yield made


@pytest.fixture
def stop() -> Stop:
    return Stop()


@pytest.fixture
def memory() -> Memory:
    return Memory()


Make = Callable[..., HttpSource]


@pytest.fixture
def make(server: HttpServer, stop: Stop, memory: Memory, tmp_path: Path) -> Iterator[Make]:
    made: list[HttpSource] = []

    def making(
        *, credentials: Credentials = None, rate: float = 0.0, max_spool: int = MAX_SPOOL, **request: Any
    ) -> HttpSource:
        client = HttpSourceClient(
            f"{server.url}/api/",
            credentials,
            requests_per_second=rate,
            stop=stop,  # type: ignore[arg-type]
            monotonic=stop.monotonic,
        )
        asked = HttpRequest(**{"path": "people", **request})
        made.append(HttpSource(client, asked, memory, tmp_path / "spool", Replaces.NOTHING, max_spool=max_spool))
        return made[-1]

    yield making
    for source in made:
        source.close()
    assert not (tmp_path / "spool").exists(), "records stay in the state no longer than a pass"


def read(source: HttpSource, fingerprint: bytes = FINGERPRINT) -> list[Row]:
    rows: list[Row] = []
    for portion in source.portions(fingerprint):
        for chunk in portion.chunks():
            assert not chunk.rejects
            columns = {name: column.to_pylist() for name, column in chunk.columns.items()}
            rows += [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        portion.confirm()
    return rows


def by_page(call: Call) -> Answer:
    first = 3 * (int(call.query["page"]) - 1)
    return answer({"data": {"items": PEOPLE[first : first + 3]}})


def by_cursor(call: Call) -> Answer:
    first = int(call.query.get("after", "0"))
    more = {"next": first + 3} if first + 3 < len(PEOPLE) else {}
    return answer({"data": {"items": PEOPLE[first : first + 3]}, **more})


def by_link(call: Call) -> Answer:
    first = int(call.query.get("offset", "0"))
    link = f'</api/people?offset={first + 3}>; rel="next"' if first + 3 < len(PEOPLE) else '</api/people>; rel="first"'
    return answer({"data": {"items": PEOPLE[first : first + 3]}}, headers={"link": link})


@pytest.mark.parametrize(
    ("pages", "paging", "calls"),
    [
        (by_page, Paging(kind="page", parameter="page"), 4),
        (by_cursor, Paging(kind="cursor", parameter="after", path="$.next"), 3),
        (by_link, Paging(kind="link"), 3),
    ],
)
def test_it_reads_every_page(
    server: HttpServer, make: Make, pages: Callable[[Call], Answer], paging: Paging, calls: int
) -> None:
    server.answer = pages
    assert read(make(records="$.data.items", paging=paging, query={"q": "x"})) == PEOPLE
    assert len(server.calls) == calls
    assert {call.path for call in server.calls} == {"/api/people"}
    assert server.calls[0].query["q"] == "x"


@pytest.mark.parametrize(
    ("pages", "paging"),
    [
        (lambda _: answer(PEOPLE), Paging(kind="page", parameter="p")),
        (lambda _: answer({"items": PEOPLE, "next": "a"}), Paging(kind="cursor", parameter="c", path="$.next")),
        (lambda _: answer(PEOPLE, headers={"link": '</api/people?x=1>; rel="next"'}), Paging(kind="link")),
    ],
)
def test_pages_that_go_round_in_circles_end_the_pass(
    server: HttpServer, make: Make, pages: Callable[[Call], Answer], paging: Paging
) -> None:
    server.answer = pages
    records = "$.items" if paging.kind == "cursor" else "$"
    with pytest.raises(InvalidError, match="does the API know"):
        read(make(records=records, paging=paging))
    assert len(server.calls) <= 3


def test_members_are_found_by_their_paths_and_keep_each_digit(server: HttpServer, make: Make) -> None:
    record = '{"who": {"姓 名": "王", "tags": ["a", {"b": 1.50}]}, "n": 9007199254740993, "gone": null}'
    server.answer = lambda _: Answer(body=f"[{record}]".encode())
    fields = {"name": "$.who['姓 名']", "tag": "$.who.tags[1].b", "n": "$.n", "none": "$.no.such[3]", "who": "$.who"}
    assert read(make(fields=fields)) == [
        {
            "name": "王",
            "tag": "1.50",
            "n": "9007199254740993",
            "none": None,
            "who": '{"姓 名":"王","tags":["a",{"b":1.50}]}',
        }
    ]


@pytest.mark.parametrize("path", ["", "a.b", "$.*", "$..a", "$[1:2]", "$.a[?(@.b)]", "$.a.", "$['a", "$[-1]"])
def test_a_path_with_several_results_is_refused(path: str) -> None:
    with pytest.raises(InvalidError, match="such as"):
        MemberPath(path)


def test_a_record_that_is_no_object_is_a_reject(server: HttpServer, make: Make) -> None:
    server.answer = lambda _: Answer(body=b'[{"a": "1"}, 7, {"a": "\\ud800"}, {"a": "2"}]')
    for portion in make().portions(FINGERPRINT):
        (chunk,) = portion.chunks()
        assert chunk.columns["a"].to_pylist() == ["1", "2"]
        assert [reject.line for reject in chunk.rejects] == [2, 3]


def test_the_next_pass_asks_for_what_changed(server: HttpServer, make: Make, memory: Memory) -> None:
    def changed(call: Call) -> Answer:
        return answer([one for one in PEOPLE[:limit] if one["at"] >= call.query.get("since", "")])

    limit, server.answer = 3, changed
    incremental = Incremental(parameter="since", path="$.at", initial="2026-01-02T00:00:00Z")
    assert [row["id"] for row in read(make(incremental=incremental))] == ["2", "3"]
    limit = 7
    assert [row["id"] for row in read(make(incremental=incremental))] == ["3", "4", "5", "6", "7"]
    assert read(make(incremental=incremental)) == [PEOPLE[-1]]
    assert len(read(make(incremental=incremental), fingerprint=b"another!")) == 6, "another mapping reads all again"


def test_a_pass_that_was_not_confirmed_is_asked_for_again(server: HttpServer, make: Make) -> None:
    incremental = Incremental(parameter="since", path="$.at")
    for _ in range(2):
        for portion in make(incremental=incremental).portions(FINGERPRINT):
            list(portion.chunks())
    assert [call.query for call in server.calls] == [{}, {}]


def test_whole_numbers_are_compared_as_numbers(server: HttpServer, make: Make) -> None:
    server.answer = lambda _: answer([{"v": 9}, {"v": 10}, {"v": 8}])
    incremental = Incremental(parameter="since", path="$.v")
    read(make(incremental=incremental))
    read(make(incremental=incremental))
    assert server.calls[-1].query == {"since": "10"}


def test_a_token_is_sent_and_shown_nowhere(server: HttpServer, make: Make) -> None:
    read(make(credentials="s3cret-token"))
    assert server.calls[0].headers["authorization"] == "Bearer s3cret-token"
    for status, kind in ((403, RefusedError), (404, InvalidError), (302, InvalidError), (500, UnavailableError)):
        server.answer = lambda call, status=status: Answer(status, call.headers["authorization"].encode())
        with pytest.raises(kind) as caught:
            read(make(credentials="s3cret-token", query={"key": "private"}))
        assert str(status) in str(caught.value)
        assert not {"s3cret", "private"} & set(str(caught.value).replace("-", " ").split())
    assert "hidden" not in repr(OAuthClient(token_url="https://x", client_id="c", client_secret="hidden"))


class Authority:
    """An authorization server and the API behind it: a token is good for one page, then it was revoked."""

    def __init__(self) -> None:
        self.given = 0
        self.good = ""

    def __call__(self, call: Call) -> Answer:
        if call.path == "/token":
            basic = base64.b64decode(call.headers["authorization"].removeprefix("Basic ")).decode()
            assert (basic, call.body) == ("client:s3cret", b"grant_type=client_credentials&scope=people")
            self.given += 1
            self.good = f"t{self.given}"
            return answer({"access_token": self.good, "token_type": "Bearer", "expires_in": 3600})
        if call.headers["authorization"] != f"Bearer {self.good}":
            return Answer(401)
        self.good = ""
        return by_cursor(call)


def test_a_client_s_token_is_asked_for_and_renewed(server: HttpServer, make: Make) -> None:
    server.answer = authority = Authority()
    client = OAuthClient(token_url=f"{server.url}/token", client_id="client", client_secret="s3cret", scope="people")
    paging = Paging(kind="cursor", parameter="after", path="$.next")
    assert read(make(credentials=client, records="$.data.items", paging=paging)) == PEOPLE
    assert authority.given == 3
    server.answer = lambda call: Answer(400 if call.path == "/token" else 200)
    with pytest.raises(RefusedError, match="check its id and secret"):
        read(make(credentials=client))


def test_credentials_go_to_no_other_host(server: HttpServer, make: Make) -> None:
    with http_server(lambda _: answer([])) as other:
        for link in (f"{other.url}/people", "//127.0.0.1:1/x", "http://localhost/x"):
            server.answer = lambda _, link=link: answer(PEOPLE, headers={"link": f'<{link}>; rel="next"'})
            with pytest.raises(InvalidError, match="another host"):
                read(make(credentials="t", paging=Paging(kind="link")))
        assert other.calls == []


def test_a_busy_server_is_asked_again_when_it_says(server: HttpServer, make: Make, stop: Stop) -> None:
    answers = iter([Answer(429, headers={"retry-after": "21"}), Answer(503), answer(PEOPLE)])
    server.answer = lambda _: next(answers)
    assert read(make()) == PEOPLE
    assert stop.waits[0] == 21.0
    server.answer = lambda _: Answer(503, headers={"retry-after": "40"})
    with pytest.raises(UnavailableError) as caught:
        read(make())
    assert caught.value.retry_after == 40.0
    assert len(server.calls) == 6


def test_a_long_wait_is_not_waited_for_within_a_pass(server: HttpServer, make: Make, stop: Stop) -> None:
    server.answer = lambda _: Answer(503, headers={"retry-after": "600"})
    with pytest.raises(UnavailableError) as caught:
        read(make())
    assert (caught.value.retry_after, stop.waits, len(server.calls)) == (600.0, [], 1)


def test_a_cut_page_is_asked_for_again(server: HttpServer, make: Make) -> None:
    whole = answer(PEOPLE)
    answers = iter([Answer(body=whole.body, cut=True), whole])
    server.answer = lambda _: next(answers)
    assert read(make()) == PEOPLE


def test_requests_keep_their_distance(server: HttpServer, make: Make, stop: Stop) -> None:
    server.answer = by_page
    read(make(records="$.data.items", paging=Paging(kind="page", parameter="page"), rate=4.0))
    assert stop.waits == pytest.approx([0.25, 0.25, 0.25])


@pytest.mark.parametrize(
    ("body", "cause"),
    [(b"<html>", "no JSON"), (b"\xff\xfe", "no JSON"), (b'{"a": [NaN]}', "no JSON"), (b'{"a": 1}', "no array at")],
)
def test_what_is_no_page_is_refused(server: HttpServer, make: Make, body: bytes, cause: str) -> None:
    server.answer = lambda _: Answer(body=body)
    with pytest.raises(InvalidError, match=cause) as caught:
        read(make(records="$.a"))
    assert caught.value.reason is Reason.CONFIG_INVALID


def test_a_server_whose_certificate_is_not_trusted_gets_no_credentials(
    make: Make, tmp_path: Path, stop: Stop, memory: Memory
) -> None:
    context, authority = certificate(tmp_path)
    with http_server(lambda _: answer(PEOPLE), context) as server:

        def source(trusted: Path | None) -> HttpSource:
            client = HttpSourceClient(server.url, "t", authority=trusted, stop=stop, monotonic=stop.monotonic)  # type: ignore[arg-type]
            return HttpSource(client, HttpRequest(path="/x"), memory, tmp_path / "spool", Replaces.NOTHING)

        distrusting, trusting = source(None), source(authority)
        with pytest.raises(UnavailableError, match="ConnectError"):
            read(distrusting)
        assert server.calls == []
        assert read(trusting) == PEOPLE
        distrusting.close()
        trusting.close()


def certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """Return a server's context, and the certificate by which it is trusted."""
    import datetime as dt
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - dt.timedelta(1), now + dt.timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file, key_file = folder / "tls.crt", folder / "tls.key"
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key_file)
    return context, file


@pytest.mark.parametrize("link", ["http://[", "http://127.0.0.1:99999999/x", "http://a\x7fb/", "/" + "x" * 70_000])
def test_a_link_that_is_no_address_ends_the_pass_with_an_error(server: HttpServer, make: Make, link: str) -> None:
    server.answer = lambda _: answer([], headers={"link": f'<{link}>; rel="next"'})
    with pytest.raises((InvalidError, UnavailableError)) as caught:
        read(make(paging=Paging(kind="link")))
    assert link not in caught.value.message


def test_a_cursor_that_fits_into_no_address_ends_the_pass_with_an_error(server: HttpServer, make: Make) -> None:
    server.answer = lambda _: answer({"items": [], "next": "x" * 100_000})
    with pytest.raises(InvalidError, match="no address"):
        read(make(records="$.items", paging=Paging(kind="cursor", parameter="after", path="$.next")))


def test_no_error_shows_the_path_of_a_link(server: HttpServer, make: Make) -> None:
    for bad in (Answer(404), Answer(403), Answer(body=b"<html>")):
        answers = iter([answer([], headers={"link": '</api/110105199001010017>; rel="next"'}), bad])
        server.answer = lambda _, answers=answers: next(answers)
        with pytest.raises((InvalidError, RefusedError)) as caught:
            read(make(paging=Paging(kind="link")))
        assert "1101" not in caught.value.message


@pytest.mark.parametrize("encoding", ["gzip", "gzip, gzip", "br"])
def test_a_page_that_is_not_what_its_encoding_says_ends_the_pass_with_an_error(
    server: HttpServer, make: Make, encoding: str
) -> None:
    server.answer = lambda _: answer(PEOPLE, headers={"content-encoding": encoding})
    with pytest.raises((InvalidError, UnavailableError), match=r"DecodingError|expected gzip, or none"):
        read(make())


def test_a_page_that_was_compressed_several_times_is_not_unpacked(server: HttpServer, make: Make) -> None:
    once = gzip.compress(bytes(200 << 20), 1)
    server.answer = lambda _: Answer(body=gzip.compress(once), headers={"content-encoding": "gzip, gzip"})
    tracemalloc.start()
    with pytest.raises(InvalidError, match="expected gzip, or none"):
        read(make())
    assert tracemalloc.get_traced_memory()[1] < 100 << 20
    tracemalloc.stop()
    body = gzip.compress(json.dumps(PEOPLE).encode())
    server.answer = lambda _: Answer(body=body, headers={"content-encoding": "gzip"})
    assert read(make()) == PEOPLE


def test_a_page_that_is_too_deep_for_what_writes_it_out_is_refused(server: HttpServer, make: Make) -> None:
    for levels in (150, 480, 100_000):
        server.answer = lambda _, levels=levels: Answer(body=b'[{"a":' + b"[" * levels + b"]" * levels + b"}]")
        with pytest.raises(InvalidError, match="no JSON"):
            read(make())


def test_an_answer_that_does_not_end_is_given_up(server: HttpServer, memory: Memory, tmp_path: Path) -> None:
    server.answer = lambda _: answer(PEOPLE)
    later = count(0.0, 700.0)  # seconds between two looks at the clock
    client = HttpSourceClient(f"{server.url}/", "t", timeout=60.0, monotonic=lambda: next(later), backoff=0.0)
    with pytest.raises(UnavailableError, match="ReadTimeout"):
        client.get("people", {})
    client.close()


def test_a_number_of_any_length_may_be_the_greatest(server: HttpServer, make: Make) -> None:
    long = "9" * 6_000
    server.answer = lambda _: Answer(
        body=f'[{{"at": 7}}, {{"at": {long}}}, {{"at": 0008}}]'.replace("0008", "8").encode()
    )
    source = make(incremental=Incremental(parameter="since", path="$.at"))
    assert [row["at"] for row in read(source)] == ["7", long, "8"]
    server.answer = lambda _: answer([])
    read(source)
    assert server.calls[-1].query == {"since": long}


def test_an_api_that_never_ends_fills_no_disk(server: HttpServer, make: Make, tmp_path: Path) -> None:
    numbers = count()
    server.answer = lambda _: answer([{"id": next(numbers), "text": "x" * 1_000} for _ in range(100)])
    source = make(max_spool=1 << 20, paging=Paging(kind="page", parameter="page"))
    with pytest.raises(InvalidError, match=r"raise `source\.max_pass`") as refused:
        read(source)
    assert refused.value.reason is Reason.CONFIG_INVALID
    assert not (tmp_path / "spool").exists()
    assert len(server.calls) < 20


def test_the_pages_are_written_through_no_link(make: Make, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("as it was")
    (tmp_path / "spool").symlink_to(tmp_path / "victim")
    with pytest.raises(UnavailableError):
        read(make())
    assert (tmp_path / "victim").read_text() == "as it was"
