"""A client that lasts longer than its certificate."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from connectors.runtime import renewing_client
from connectors.runtime.renewing_client import RenewingPoolClient
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
