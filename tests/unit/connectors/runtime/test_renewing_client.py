"""A client that lasts longer than its certificate."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from connectors.runtime import renewing_client
from connectors.runtime.renewing_client import RenewingPoolClient
from exchange.api.problems import rpc_status
from exchange.client import Identity
from schemas.errors import ConflictError, InvalidError, Reason, RefusedError
from schemas.proto.pool.v1 import exchange_pb2 as wire
from schemas.proto.pool.v1 import exchange_pb2_grpc as stubs
from tests.kit.twins.gateway_stub import PlaintextClient, identity, serving

NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)


class Gateway(stubs.ExchangeServicer):
    def __init__(self, name: str, left: timedelta) -> None:
        self.name = name
        self.left = left
        self.now = NOW

    def Hello(self, request: wire.HelloRequest, context: Any) -> wire.HelloReply:  # noqa: N802
        expires, now = (int(at.timestamp() * 1e6) for at in (NOW + self.left, self.now))
        return wire.HelloReply(pool_id=self.name, certificate_expires=expires, server_time=now)


class Client(RenewingPoolClient, PlaintextClient):
    """Renews as in production, and connects without TLS."""


def enrolled(folder: Path, address: str) -> Path:
    identity(address).save(folder)
    return folder


def test_in_its_last_ten_days_a_certificate_is_renewed_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = Gateway("old", timedelta(days=10, seconds=1))
    with serving(pool) as old, serving(Gateway("new", timedelta(30))) as new:
        asked: list[Identity] = []

        def renew(current: Identity, folder: Path) -> Identity:
            asked.append(current)
            renewed = identity(new, certificate=b"renewed")
            renewed.save(folder)
            return renewed

        monkeypatch.setattr(renewing_client, "renew", renew)
        with Client(enrolled(tmp_path, old), "", lambda: NOW) as client:
            signed = client.sign(b"statement")
            client.refresh()
            assert (asked, client.hello().pool_id) == ([], "old"), "it is not yet time"
            pool.now = NOW + timedelta(seconds=2)
            client.refresh()
            assert [each.gateway for each in asked] == [old], "the one that is still valid authenticates the request"
            assert client.hello().pool_id == "new"
            assert Identity.load(tmp_path).certificate == client.identity.certificate == b"renewed"
            assert client.sign(b"statement") == signed
            client.refresh()
            assert len(asked) == 1


@pytest.mark.parametrize("ahead", [timedelta(days=21), timedelta(hours=-2)])
def test_a_clock_that_is_wrong_is_told_and_a_good_certificate_is_used_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: timedelta
) -> None:
    def renew(*_: object) -> Identity:
        raise ConflictError(Reason.TRANSITION_NOT_ALLOWED, "renewed too early")

    monkeypatch.setattr(renewing_client, "renew", renew)
    told: list[str] = []
    with (
        serving(Gateway("pool", timedelta(days=30))) as address,
        Client(enrolled(tmp_path, address), "", lambda: NOW + ahead, told.append) as client,
    ):
        client.refresh()
    assert len(told) == 1
    assert f"clock says {NOW + ahead:%Y-%m-%d %H:%M}, the pool's 2026-01-31 09:30 (UTC)" in told[0]


def test_a_revoked_certificate_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def renew(*_: object) -> Identity:
        raise RefusedError(Reason.CERTIFICATE_REVOKED, "revoked")

    monkeypatch.setattr(renewing_client, "renew", renew)
    gateway = Gateway("pool", timedelta(days=1))
    with serving(gateway) as address, Client(enrolled(tmp_path, address), "", lambda: NOW) as client:
        with pytest.raises(RefusedError):
            client.refresh()
        assert client.hello().pool_id == "pool"


def test_the_configured_gateway_comes_before_that_of_the_enrolment(tmp_path: Path) -> None:
    gateway = Gateway("configured", timedelta(days=30))
    with serving(gateway) as address, Client(enrolled(tmp_path, "127.0.0.1:1"), address, lambda: NOW) as client:
        assert client.hello().pool_id == "configured"


def test_a_folder_without_identity_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="pool-connect enrol"):
        Client(tmp_path, "", lambda: NOW)


class RenewedGrants(stubs.ExchangeServicer):
    """Knows under which grant each one goes on."""

    def __init__(self, renewals: dict[str, str]) -> None:
        self.renewals = renewals
        self.asked: list[tuple[str, str]] = []

    def _under(self, call: str, grant: str, context: Any) -> None:
        self.asked.append((call, grant))
        if grant in self.renewals:
            error = RefusedError(Reason.GRANT_RENEWED, "renewed", details={"grant": self.renewals[grant]})
            status = rpc_status(error)
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
            context.abort(grpc.StatusCode.PERMISSION_DENIED, error.message)

    def Fetch(self, request: wire.FetchRequest, context: Any) -> wire.FetchReply:  # noqa: N802
        self._under("fetch", request.grant_id, context)
        return wire.FetchReply(next_position=request.position + b"+")

    def Commit(self, request: wire.CommitRequest, context: Any) -> wire.CommitReply:  # noqa: N802
        self._under("commit", request.grant_id, context)
        return wire.CommitReply(entry_id="e-1")


def test_a_grant_that_was_renewed_goes_on_under_its_renewal_from_the_same_position(tmp_path: Path) -> None:
    gateway, told = RenewedGrants({"g-1": "g-2", "g-2": "g-3"}), list[str]()
    declared = {"purpose": "eligibility", "case": "1"}
    with serving(gateway) as address, Client(enrolled(tmp_path, address), "", lambda: NOW, told.append) as client:
        assert client.fetch("g-1", position=b"p", **declared).next_position == b"p+"
        assert client.commit("g-1", b"p+", **declared) == "e-1"
        assert gateway.asked == [("fetch", "g-1"), ("fetch", "g-2"), ("fetch", "g-3"), ("commit", "g-3")]
        assert told == [
            "the grant g-1 was renewed: g-1 goes on under g-2",
            "the grant g-2 was renewed: g-1 goes on under g-3",
        ]


def test_a_renewal_that_names_itself_is_an_error_and_no_loop(tmp_path: Path) -> None:
    gateway = RenewedGrants({"g-1": "g-2", "g-2": "g-2"})
    with serving(gateway) as address, Client(enrolled(tmp_path, address), "", lambda: NOW) as client:
        with pytest.raises(RefusedError) as caught:
            client.fetch("g-1", purpose="eligibility", case="1")
        assert caught.value.reason is Reason.GRANT_RENEWED
        assert len(gateway.asked) == 2
