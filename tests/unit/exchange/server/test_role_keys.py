"""The table of keys by role: it covers every key, and a process opens and hands out those of its roles alone."""

import re
from itertools import combinations
from pathlib import Path

import pytest

from exchange.audit.entry_tags import ENTRY_ROLES
from exchange.audit.note import FileSigner
from exchange.config import Config
from exchange.identity.authority import Authority
from exchange.identity.keyfile import create_ed25519
from exchange.identity.secrets import FileSecrets, MemorySecrets, RoleSecrets, SecretsOfRole
from exchange.server import initialise
from exchange.server.clock import utc_now
from exchange.server.composition import App
from exchange.server.initialise import check_server_certificate, renew_server_certificate
from exchange.server.key_files import receipts_key
from exchange.server.roles import KEYS, RESERVED, Role, keys_of
from exchange.server.row_tags import tagged_tables
from registry.database.row_tags import Tagged, classification
from schemas.errors import InvalidError, Reason
from schemas.names import Topic

ROOT = Path(initialise.__file__).parents[1]
ROLES = [frozenset(some) for size in (1, 2, 3) for some in combinations(Role, size)]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """What `pool init` leaves, without a database: a start gets as far as that, and no further."""
    folder = tmp_path / "pool"
    folder.mkdir()
    authority = Authority.create(folder / "ca", "city", utc_now())
    FileSecrets.create(folder / "secrets")
    create_ed25519(receipts_key(folder))
    FileSigner.create(folder / "secrets" / "log.key", "city/audit")
    (folder / "pool.toml").write_text(
        'pool_id = "city"\norigin = "city/audit"\ngateway = "localhost:1"\ndatabase = "${env:NOT_SET_ANYWHERE}"\n'
    )
    config = Config.load(folder)
    renew_server_certificate(config, authority)
    return config


def test_every_key_file_of_a_pool_has_a_role(config: Config) -> None:
    masters = {f"secrets/{name}.master" for name in ("topic", "grant", "named")}
    made = {str(file.relative_to(config.folder)) for file in config.folder.rglob("*") if file.is_file()}
    keys = {name for name in made if name.endswith((".key", ".master"))}
    assert keys - masters == frozenset().union(*(table.files for table in KEYS.values()))
    assert masters <= keys


def test_every_named_key_that_the_code_asks_for_has_a_role() -> None:
    asked = set()
    for file in ROOT.rglob("*.py"):
        for call in re.findall(r"named_key\(([^()]*)\)", file.read_text()):
            asked.add(call)
    families = {found.family for table in tagged_tables() if isinstance(found := classification(table), Tagged)}
    known = {
        'f"entries/{role}"': {f"entries/{role}" for role in ENTRY_ROLES},
        'f"row-tags/{family}"': {f"row-tags/{family}" for family in families},
        '"grant-seal"': {"grant-seal"},
        '"erasure-list"': {"erasure-list"},
        "seal": {"grant-seal"},
        "RECORDS_KEY": {"stored-records"},
        "MAC_KEY": set[str](),  # of commands on the whole folder: a backup is of no role
    }
    passed_on = {"name", "self, name: str"}  # the port and its adapters
    assert asked - passed_on == known.keys(), "a named key that is asked for needs a role in exchange.server.roles"
    existing = [table for role, table in KEYS.items() if role not in RESERVED]
    assert set().union(*known.values()) == set().union(*(table.secrets.named for table in existing))


def test_a_key_decides_for_one_role_alone_where_it_can() -> None:
    signing = {"secrets/log.key": {"sequencer"}, "secrets/receipts.key": {"gateway"}, "ca/authority.key": {"gateway"}}
    for file, roles in signing.items():
        assert {role for role, table in KEYS.items() if file in table.files} - {"operator"} == roles
    assert not any(name.startswith("row-tags/") for name in KEYS["sequencer"].secrets.named)
    for role in ("registry", "sequencer", "console", "hub"):
        assert not KEYS[role].secrets.topic
        assert not KEYS[role].secrets.grant
        assert not KEYS[role].secrets.audit


def test_the_sequencer_knows_every_role_that_writes_entries() -> None:
    writing = {role for role, table in KEYS.items() if f"entries/{role}" in table.secrets.named}
    assert writing - RESERVED == set(ENTRY_ROLES)
    assert {f"entries/{role}" for role in ENTRY_ROLES} == KEYS["sequencer"].secrets.named
    assert set(Role) == KEYS.keys() - RESERVED - {"operator"}


@pytest.mark.parametrize("role", KEYS)
def test_a_role_is_refused_what_is_not_on_its_list(role: str) -> None:
    allowed = KEYS[role].secrets
    secrets = RoleSecrets(MemorySecrets(b"s" * 32), allowed, role)
    names = set().union(*(table.secrets.named for table in KEYS.values())) | {"made-up"}
    for name in names:
        if name in allowed.named:
            assert secrets.named_key(name) == MemorySecrets(b"s" * 32).named_key(name)
            continue
        with pytest.raises(InvalidError, match=f"{name}.*role {role}") as refused:
            secrets.named_key(name)
        assert refused.value.reason is Reason.CONFIG_INVALID
    if not allowed.grant:
        with pytest.raises(InvalidError, match=f"role {role}"):
            secrets.grant_key("g")
    if not allowed.topic:
        with pytest.raises(InvalidError, match=f"role {role}"):
            secrets.topic_key(Topic.parse("residents.v1").subject)  # type: ignore[arg-type]
    if allowed.audit:
        return
    for call in (secrets.audit_key, secrets.draw_audit_key, secrets.destroy_audit_key):
        with pytest.raises(InvalidError, match=f"role {role}"):
            call("2026-10")
    with pytest.raises(InvalidError, match=f"role {role}"):
        secrets.audit_epochs()


@pytest.mark.parametrize("roles", ROLES, ids=lambda roles: "+".join(sorted(roles)))
def test_a_process_starts_without_the_key_files_of_other_roles(config: Config, roles: frozenset[Role]) -> None:
    table = keys_of(roles)
    for name in frozenset().union(*(each.files for each in KEYS.values())) - table.files:
        config.path(name).unlink()
    for name, needed in (("topic", table.secrets.topic), ("grant", table.secrets.grant)):
        if not needed:
            config.path("secrets", f"{name}.master").unlink()
    with pytest.raises(InvalidError, match="NOT_SET_ANYWHERE"):
        App.open(config, roles=roles)


@pytest.mark.parametrize("role", Role)
def test_a_process_does_not_start_without_a_key_of_its_own(config: Config, role: Role) -> None:
    for name in KEYS[role].files - {"ca/server.key"} | {"secrets/named.master"}:
        kept = config.path(name).read_bytes()
        config.path(name).unlink()
        with pytest.raises(InvalidError, match=re.escape(str(config.path(name).parent))):
            App.open(config, roles=frozenset({role}))
        config.path(name).touch(mode=0o600)
        config.path(name).write_bytes(kept)


def test_exported_keys_are_those_that_the_masters_give(config: Config, tmp_path: Path) -> None:
    part = SecretsOfRole(grant=True, audit=True, named=frozenset({"entries/gateway", "grant-seal"}))
    whole = FileSecrets.open(config.path("secrets"))
    whole.draw_audit_key("2026-10")
    whole.export(tmp_path / "out", part)
    read = FileSecrets.open_part(tmp_path / "out", part)
    assert read.grant_key("g") == whole.grant_key("g")
    assert read.audit_key("2026-10") == whole.audit_key("2026-10")
    for name in part.named:
        assert read.named_key(name) == whole.named_key(name)
    with pytest.raises(InvalidError, match="no key of this kind"):
        read.named_key("entries/sequencer")
    with pytest.raises(InvalidError, match="already"):
        whole.export(tmp_path / "out", part)
    (tmp_path / "out" / "named" / "grant-seal.key").chmod(0o644)
    with pytest.raises(InvalidError, match="open to others"):
        FileSecrets.open_part(tmp_path / "out", part)


def test_a_role_without_the_authority_s_key_needs_a_listener_s_certificate(config: Config) -> None:
    check_server_certificate(config)
    config.path("ca", "server.crt").unlink()
    with pytest.raises(InvalidError, match="start a gateway"):
        check_server_certificate(config)
