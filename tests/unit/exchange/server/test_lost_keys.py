"""A key that `pool init` made and that is gone stops the start, with what to do; no start ever makes one."""

import contextlib
import threading
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from typer.testing import CliRunner

from exchange.audit.note import FileSigner
from exchange.cli import app as program
from exchange.config import Config
from exchange.identity.authority import Authority
from exchange.identity.keyfile import create_ed25519, read_ed25519
from exchange.identity.secrets import FileSecrets
from exchange.server import initialise
from exchange.server.clock import utc_now
from exchange.server.composition import App
from exchange.server.initialise import renew_server_certificate
from exchange.server.key_files import receipts_key
from schemas.errors import InvalidError, Reason


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """What `pool init` leaves, without a database: a start gets as far as that, and no further."""
    folder = tmp_path / "pool"
    folder.mkdir()
    Authority.create(folder / "ca", "city", utc_now())
    FileSecrets.create(folder / "secrets")
    create_ed25519(receipts_key(folder))
    FileSigner.create(folder / "secrets" / "log.key", "city/audit")
    (folder / "pool.toml").write_text(
        'pool_id = "city"\norigin = "city/audit"\ngateway = "localhost:1"\ndatabase = "${env:NOT_SET_ANYWHERE}"\n'
    )
    return Config.load(folder)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_with_every_key_the_start_goes_on_to_the_database(config: Config) -> None:
    with pytest.raises(InvalidError, match="NOT_SET_ANYWHERE"):
        App.open(config)


@pytest.mark.parametrize(
    "lost",
    [
        "secrets/receipts.key",
        "secrets/log.key",
        "secrets/topic.master",
        "secrets/grant.master",
        "secrets/named.master",
        "ca/authority.key",
        "ca/authority.crt",
    ],
)
def test_a_lost_key_stops_the_start_and_is_not_made_again(config: Config, lost: str) -> None:
    config.path(lost).unlink()
    before = everything(config.folder)
    with pytest.raises(InvalidError, match="restore it from the backup") as refused:
        App.open(config)
    assert refused.value.reason is Reason.CONFIG_INVALID
    assert str(config.path(lost).parent) in refused.value.message
    assert everything(config.folder) == before


def test_the_error_of_a_lost_receipts_key_names_the_command_that_makes_another(config: Config) -> None:
    receipts_key(config.folder).unlink()
    with pytest.raises(InvalidError, match="`pool renew-receipts-key`"):
        App.open(config)


def public(path: Path) -> str:
    return read_ed25519(path).public_key().public_bytes_raw().hex()


@pytest.mark.parametrize("lost", [True, False])
def test_another_receipts_key_is_made_by_command_alone_and_the_old_one_is_kept(config: Config, lost: bool) -> None:
    path = receipts_key(config.folder)
    old, content = public(path), path.read_bytes()
    if lost:
        path.unlink()
    before = everything(config.folder)
    command = ["renew-receipts-key", "--data", str(config.folder)]
    answer = CliRunner().invoke(program, command)
    assert isinstance(answer.exception, InvalidError)
    assert everything(config.folder) == before, "it asks first"
    answer = CliRunner().invoke(program, [*command, "--every-connector-will-stop"])
    assert answer.exit_code == 0
    assert public(path) != old
    assert public(path) in answer.output
    kept = config.path("secrets", f"receipts-{old[:16]}.key")
    assert (kept.read_bytes() if kept.exists() else None) == (None if lost else content)
    with pytest.raises(InvalidError, match="NOT_SET_ANYWHERE"):
        App.open(config)
    assert isinstance(read_ed25519(path), ed25519.Ed25519PrivateKey)


def test_the_listeners_key_alone_is_made_anew_since_the_authority_vouches_for_it(config: Config) -> None:
    authority = Authority.load(config.path("ca"), config.pool_id)
    renew_server_certificate(config, authority)
    made = everything(config.folder)
    renew_server_certificate(config, authority)
    assert everything(config.folder) == made
    for name in ("server.key", "server.crt"):
        config.path("ca", name).unlink()
        renew_server_certificate(config, authority)
        assert everything(config.folder).keys() == made.keys()


def test_processes_that_start_together_leave_a_key_and_a_certificate_that_fit(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority.load(config.path("ca"), config.pool_id)
    both, one_after_the_other = threading.Barrier(2), initialise._issue_server_certificate
    issued: list[str] = []

    def issue(*arguments: Any) -> None:
        issued.append(threading.current_thread().name)
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(1)  # whoever else may be here at the same time has come by then
        one_after_the_other(*arguments)

    monkeypatch.setattr(initialise, "_issue_server_certificate", issue)
    starts = [threading.Thread(target=renew_server_certificate, args=(config, authority)) for _ in range(2)]
    for start in starts:
        start.start()
    for start in starts:
        start.join(30)
    assert len(issued) == 1
    key = serialization.load_pem_private_key(config.path("ca", "server.key").read_bytes(), None)
    certificate = x509.load_pem_x509_certificates(config.path("ca", "server.crt").read_bytes())[0]
    assert key.public_key() == certificate.public_key()
