"""Webhook: signed, idempotent, repeated with back-off; what the target refuses is set aside, and nothing else is."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest

from connectors.conformance import SCHEMA, expect_no_rejects, make_release
from connectors.port import DecodedRelease, RejectCode, RejectedRecord
from connectors.retry import retry_after_of
from connectors.sinks.webhook import WebhookSink, WebhookTarget
from schemas.errors import ConflictError, InvalidError, Reason, RefusedError, UnavailableError
from tests.kit.twins.http_server import Answer, Call, HttpServer, http_server

SECRET = "a-secret-of-more-than-24-bytes"
NOW = datetime(2026, 3, 1, 8, 0, 0, tzinfo=UTC)


class Stop:
    """Stands for the event that ends waits: keeps how long was waited, and lets the time pass."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self.now = 0.0

    def is_set(self) -> bool:
        return False

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        self.now += seconds
        return False

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with http_server(lambda _: Answer()) as made:
        yield made


@pytest.fixture
def stop() -> Stop:
    return Stop()


Make = Callable[..., WebhookSink]


@pytest.fixture
def make(server: HttpServer, stop: Stop, tmp_path: Path) -> Iterator[Make]:
    made: list[WebhookSink] = []

    def making(**more: object) -> WebhookSink:
        target = WebhookTarget(**{"url": f"{server.url}/in", "secret": SECRET, **more})  # type: ignore[arg-type]
        sink = WebhookSink(
            target,
            "g-1",
            tmp_path / "positions",
            stop=stop,  # type: ignore[arg-type]
            clock=lambda: NOW,
            monotonic=stop.monotonic,
        )
        sink.prepare(SCHEMA)
        made.append(sink)
        return sink

    yield making
    for sink in made:
        sink.close()


def names(call: Call) -> list[str | None]:
    return [one["value"]["name"] if "value" in one else None for one in json.loads(call.body)["records"]]


def refusing(*bad: str, status: int = 422) -> Callable[[Call], Answer]:
    return lambda call: Answer(status if set(bad) & set(names(call)) else 200)


def test_a_request_is_signed_over_its_id_its_time_and_its_body(server: HttpServer, make: Make) -> None:
    make().write(make_release({1: "王小明", 2: None}), b"", b"p1", expect_no_rejects)
    (call,) = server.calls
    assert (call.method, call.path, call.headers["content-type"]) == ("POST", "/in", "application/json")
    id_, stamp = call.headers["webhook-id"], call.headers["webhook-timestamp"]
    assert call.headers["idempotency-key"] == id_
    assert int(stamp) == NOW.timestamp()
    mac = hmac.new(SECRET.encode(), f"{id_}.{stamp}.".encode() + call.body, hashlib.sha256).digest()
    assert call.headers["webhook-signature"] == f"v1,{base64.b64encode(mac).decode()}"
    body = json.loads(call.body)
    assert body["grant"] == "g-1"
    first, second = body["records"]
    assert (first["record_key"], first["operation"]) == (f"{1:032x}", "upsert")
    assert (first["value"]["name"], first["recorded_at"]) == ("王小明", "1970-01-01T00:00:00.000010+00:00")
    assert set(second) == {"id", "record_key", "recorded_at", "operation"}
    assert second["operation"] == "withdrawn"


def test_the_same_records_have_the_same_ids_whatever_comes_with_them(server: HttpServer, make: Make) -> None:
    server.answer = lambda _: Answer(500)
    for release in (make_release({1: "a", 2: "b"}), make_release({1: "a", 2: "b", 3: "c"})):
        with pytest.raises(UnavailableError):
            make().write(release, b"", b"p1", expect_no_rejects)
    first, again, longer = server.calls[0], server.calls[1], server.calls[-1]
    assert first.headers["idempotency-key"] == again.headers["idempotency-key"] != longer.headers["idempotency-key"]
    ids = [[one["id"] for one in json.loads(call.body)["records"]] for call in (first, longer)]
    assert ids[0] == ids[1][:2]


def test_the_position_moves_after_the_answer_alone(server: HttpServer, make: Make) -> None:
    sink = make(batch=2)
    server.answer = lambda call: Answer(200 if "c" not in names(call) else 503)
    release = make_release({1: "a", 2: "b", 3: "c"})
    with pytest.raises(UnavailableError):
        sink.write(release, b"", b"p1", expect_no_rejects)
    assert make().position() == b""
    server.answer = lambda _: Answer(204)
    assert make().write(release, b"", b"p1", expect_no_rejects).upserted == 3
    assert make().position() == b"p1"


def test_a_busy_target_is_asked_again_when_it_says(server: HttpServer, make: Make, stop: Stop) -> None:
    answers = iter([Answer(429, headers={"retry-after": "17"}), Answer(503), Answer(200)])
    server.answer = lambda _: next(answers)
    make().write(make_release({1: "a"}), b"", b"p1", expect_no_rejects)
    assert stop.waits[0] == 17.0
    assert 0 <= stop.waits[1] <= 1.0
    assert len(server.calls) == 3


def test_a_cut_answer_counts_as_none(server: HttpServer, make: Make) -> None:
    answers = iter([Answer(200, b"x" * 1000, cut=True), Answer(200)])
    server.answer = lambda _: next(answers)
    make().write(make_release({1: "a"}), b"", b"p1", expect_no_rejects)
    assert len(server.calls) == 2


def test_a_target_that_fails_is_left_alone_and_then_tried_once(server: HttpServer, make: Make, stop: Stop) -> None:
    server.answer = lambda _: Answer(500)
    sink, release = make(), make_release({1: "a"})

    def write() -> float | None:
        with pytest.raises(UnavailableError) as caught:
            sink.write(release, b"", b"p1", expect_no_rejects)
        assert caught.value.reason is Reason.TARGET_UNAVAILABLE
        return caught.value.retry_after

    write()
    assert len(server.calls) == 5
    assert write() == pytest.approx(30.0)
    assert len(server.calls) == 5
    stop.now += 31
    write()
    assert len(server.calls) == 6
    stop.now += 31
    server.answer = lambda _: Answer()
    sink.write(release, b"", b"p1", expect_no_rejects)
    assert len(server.calls) == 7


@pytest.mark.parametrize(("status", "code"), [(400, "TARGET_REJECTED"), (413, "TOO_LARGE"), (422, "TARGET_REJECTED")])
def test_a_record_that_the_target_refuses_is_set_aside_with_the_cause(
    server: HttpServer, make: Make, status: int, code: str
) -> None:
    server.answer = refusing("c", "f", status=status)
    sink, set_aside = make(), list[RejectedRecord]()

    def quarantine(rejected: object) -> None:
        assert sink.position() == b"", "too late: the position had moved"
        set_aside.extend(rejected)  # type: ignore[arg-type]

    written = sink.write(make_release(dict(enumerate("abcdefg", 1))), b"", b"p1", quarantine)
    assert (written.upserted, list(written.rejected)) == (5, set_aside)
    assert [(one.index, one.code, str(status) in one.message) for one in set_aside] == [
        (2, RejectCode(code), True),
        (5, RejectCode(code), True),
    ]
    taken = {name for call in server.calls if not {"c", "f"} & set(names(call)) for name in names(call)}
    assert taken == set("abdeg")
    assert sink.position() == b"p1"


def test_a_target_that_refuses_everything_stops_the_subscription(server: HttpServer, make: Make) -> None:
    server.answer = lambda _: Answer(400)
    release = make_release({number: f"n{number}" for number in range(1, 200)})
    with pytest.raises(RefusedError, match="took none"):
        make().write(release, b"", b"p1", lambda _: pytest.fail("nothing is set aside"))
    assert make().position() == b""


@pytest.mark.parametrize("status", [301, 401, 403, 404, 405, 410])
def test_wrong_credentials_or_a_wrong_address_stop_the_subscription(
    server: HttpServer, make: Make, status: int
) -> None:
    server.answer = lambda _: Answer(status, headers={"location": server.url})
    with pytest.raises(RefusedError, match=str(status)):
        make().write(make_release({1: "a"}), b"", b"p1", expect_no_rejects)
    assert len(server.calls) == 1


def test_a_crash_after_the_answer_delivers_again_with_the_same_id(
    server: HttpServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(self: WebhookSink, position: bytes) -> None:
        raise KeyboardInterrupt

    release = make_release({1: "a"})
    with monkeypatch.context() as patched:
        patched.setattr(WebhookSink, "_store", crash)
        with pytest.raises(KeyboardInterrupt):
            make().write(release, b"", b"p1", expect_no_rejects)
    make().write(release, b"", b"p1", expect_no_rejects)
    first, second = server.calls
    assert (first.headers["idempotency-key"], first.body) == (second.headers["idempotency-key"], second.body)


def test_two_processes_do_not_post_at_once(server: HttpServer, make: Make) -> None:
    other = make()

    def meanwhile(_: Call) -> Answer:
        with pytest.raises(ConflictError) as caught:
            other.write(make_release({1: "b"}), b"", b"p2", expect_no_rejects)
        assert caught.value.reason is Reason.VERSION_CONFLICT
        return Answer()

    server.answer = meanwhile
    make().write(make_release({1: "a"}), b"", b"p1", expect_no_rejects)
    assert len(server.calls) == 1


def test_no_value_and_no_secret_is_in_an_error(server: HttpServer, make: Make) -> None:
    for status in (401, 500):
        server.answer = lambda call, status=status: Answer(status, call.body)
        with pytest.raises((RefusedError, UnavailableError)) as caught:
            make().write(make_release({1: "王小明"}), b"", b"p1", expect_no_rejects)
        assert "王小明" not in str(caught.value)
    assert SECRET not in repr(WebhookTarget(url="https://x", secret=SECRET))


@pytest.mark.parametrize("secret", ["short", "whsec_c2hvcnQ=", "whsec_!", "whsec_" + "a" * 33])
def test_a_weak_secret_is_refused(secret: str) -> None:
    with pytest.raises(InvalidError) as caught:
        WebhookTarget(url="https://x", secret=secret).key()
    assert caught.value.reason is Reason.CONFIG_INVALID
    assert secret not in caught.value.message


def test_a_secret_after_its_prefix_is_base64() -> None:
    assert WebhookTarget(url="https://x", secret="whsec_" + base64.b64encode(b"k" * 32).decode()).key() == b"k" * 32


def test_retry_after_is_seconds_or_a_date_and_bounded() -> None:
    at = (NOW + timedelta(seconds=90)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    told = {"5": 5.0, at: 90.0, "999999": 3600.0, "-1": None, "soon": None, "": None}
    assert {text: retry_after_of(text, NOW) for text in told} == told


def test_a_release_of_nothing_moves_the_position_without_a_call(server: HttpServer, make: Make) -> None:
    sink = make()
    release: DecodedRelease = make_release({})
    sink.write(release, b"", b"p1", expect_no_rejects)
    assert (sink.position(), server.calls) == (b"p1", [])


def test_a_target_that_answers_byte_by_byte_does_not_hold_the_subscription(server: HttpServer, tmp_path: Path) -> None:
    server.answer = lambda _: Answer(body=bytes(60_000))
    later = count(0.0, 31.0)  # seconds between two looks at the clock
    target = WebhookTarget(url=f"{server.url}/in", secret=SECRET, timeout=30.0)
    sink = WebhookSink(target, "g-1", tmp_path, monotonic=lambda: next(later))
    sink.prepare(SCHEMA)
    sink.write(make_release({1: "a"}), b"", b"p1", expect_no_rejects)
    assert (sink.position(), next(later)) == (b"p1", 93.0), "it looked at the clock as the answer came, and left"
    sink.close()
