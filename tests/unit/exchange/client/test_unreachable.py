"""What keeps a gateway from being reached is named: a clock that is wrong, a proxy of the environment."""

from datetime import UTC, datetime, timedelta

import pytest

from exchange.client.unreachable import explain_unreachable
from schemas.errors import UnavailableError
from tests.kit.certificates import self_signed
from tests.kit.twins.gateway_stub import PlaintextClient, identity

BEGIN, END = datetime(2026, 3, 1, 12, tzinfo=UTC), datetime(2026, 3, 31, 12, tzinfo=UTC)
GATEWAY = "pool.example:7443"


@pytest.fixture(scope="module")
def certificate() -> bytes:
    return self_signed(BEGIN, END)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (BEGIN - timedelta(hours=2), "clock says 2026-03-01 10:00 UTC, but the certificate begins at 2026-03-01 12:00"),
        (END + timedelta(days=1), "clock (2026-04-01 12:00 UTC) the certificate ended at 2026-03-31 12:00"),
        (BEGIN, ""),
    ],
)
def test_a_clock_outside_of_the_certificate_is_named(certificate: bytes, now: datetime, expected: str) -> None:
    found = explain_unreachable(certificate, GATEWAY, now, {})
    assert (expected in found) if expected else found == ""


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (
            {"https_proxy": "http://user:secret@10.0.0.1:3128"},
            "proxy 10.0.0.1:3128 of the environment variable https_proxy",
        ),
        ({"grpc_proxy": "http://a:1", "http_proxy": "http://b:2"}, "proxy a:1 of the environment variable grpc_proxy"),
        ({"http_proxy": "http://b:2", "no_proxy": "other.example, .example"}, ""),
        (
            {"http_proxy": "http://b:2", "no_grpc_proxy": "elsewhere", "no_proxy": "pool.example"},
            "set no_grpc_proxy=pool.example",
        ),
        ({"http_proxy": "b:2"}, "proxy (no address) of the environment variable http_proxy"),
        ({"http_proxy": "http://b:port"}, "proxy (no address) of the environment variable http_proxy"),
        ({"http_proxy": "http://u:12?secret@p:1"}, "proxy (no address) of the environment variable http_proxy"),
        ({"http_proxy": "http://u:12/secret@p:1"}, "proxy (no address) of the environment variable http_proxy"),
        ({"http_proxy": "http://u:12#secret@p:1"}, "proxy (no address) of the environment variable http_proxy"),
        ({"http_proxy": "http://u:secret@\n h:1"}, "proxy (no address) of the environment variable http_proxy"),
        ({"http_proxy": "http://u:secret@[fd00::1]:3128/"}, "proxy [fd00::1]:3128 of the environment variable"),
        ({"HTTPS_PROXY": "http://gRPC.reads:1"}, ""),
        ({"https_proxy": ""}, ""),
    ],
)
def test_a_proxy_is_named_with_its_variable_and_without_its_password(
    environment: dict[str, str], expected: str
) -> None:
    found = explain_unreachable(b"", GATEWAY, BEGIN, environment)
    assert (expected in found) if expected else found == ""
    assert "secret" not in found
    assert ":12" not in found


def test_a_call_that_meets_nobody_says_which_proxy_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("grpc_proxy", "http_proxy", "no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with (
        PlaintextClient(identity("pool.invalid:7443"), timeout=20) as client,
        pytest.raises(UnavailableError, match=r"proxy 127\.0\.0\.1:9 of the environment variable https_proxy"),
    ):
        client.hello()
