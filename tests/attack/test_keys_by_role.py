"""The owner of one role's host has the keys of that role: its folder holds no others, and the role needs no others."""

import json
import ssl
import stat
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from exchange.audit.entry_tags import ENTRY_ROLES
from exchange.server.roles import KEYS, Role
from tests.kit.patience import PATIENCE, wait_for
from tests.kit.world import postgres
from tests.kit.world.world import World

pytestmark = [pytest.mark.e2e, pytest.mark.postgres]
SECRET = {".key", ".master"}


class Apart(World):
    """A pool whose roles run in processes of their own, each on a folder with its own keys."""

    def __init__(self, folder: Path, url: sa.URL) -> None:
        super().__init__(folder)
        address = folder / "address"
        address.write_text(url.render_as_string(hide_password=False))
        database = f"${{file:{address}}}"
        run = self.programs.run
        run("pool", "init", "--data", str(self.data), "--pool-id", "test-pool", "--database", database)
        config = self.data / "pool.toml"
        listen = "\n".join(f'{name} = "127.0.0.1:0"' for name in ("grpc", "enrolment", "http", "registry", "metrics"))
        text = config.read_text().replace('gateway = "localhost:7443"', 'gateway = "localhost:0"')
        config.write_text(f"{text}\n[listen]\n{listen}\n")
        for role in Role:
            run("pool", "keys", "export", "--data", str(self.data), "--role", role, "--out", str(self.host(role)))

    def host(self, role: Role) -> Path:
        return self.folder / f"host-{role}"

    def said(self, role: Role) -> str:
        return (self.folder / f"{role}.log").read_text()

    @contextmanager
    def serving(self, role: Role) -> Iterator[dict[str, str]]:
        command = self.programs.command("pool", "serve", "--data", str(self.host(role)), "--role", role)
        with (self.folder / f"{role}.log").open("a") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line.startswith("ready "), self.said(role)[-2000:]
            yield json.loads(line.removeprefix("ready "))
        finally:
            process.terminate()
            process.wait(PATIENCE)
            process.stdout.close()


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory, postgres_server: sa.URL) -> Iterator[Apart]:
    with postgres.fresh_database(postgres_server) as url:
        yield Apart(tmp_path_factory.mktemp("apart"), url)


def secrets_in(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.suffix in SECRET}


@pytest.mark.parametrize("role", Role)
def test_the_folder_of_a_role_holds_its_keys_and_no_others(apart: Apart, role: Role) -> None:
    table = KEYS[role]
    expected = {f"secrets/named/{name.replace('/', '.')}.key" for name in table.secrets.named} | table.files
    if role is Role.GATEWAY:
        expected |= {"secrets/topic.master", "secrets/grant.master"}
    host = apart.host(role)
    assert secrets_in(host) == expected
    for name in expected:
        assert stat.S_IMODE((host / name).stat().st_mode) == 0o600
    here = {file.read_bytes() for file in host.rglob("*") if file.is_file()}
    for name in secrets_in(apart.data) - table.files - expected:
        assert (apart.data / name).read_bytes() not in here, f"{name} is in the folder of {role}"


@pytest.mark.parametrize(
    ("role", "host", "missing"),
    [
        (Role.SEQUENCER, Role.GATEWAY, "entries.operator.key"),
        (Role.GATEWAY, Role.SEQUENCER, "authority.key"),
        (Role.REGISTRY, Role.SEQUENCER, "server.key"),
    ],
)
def test_a_role_does_not_start_with_the_keys_of_another(apart: Apart, role: Role, host: Role, missing: str) -> None:
    done = apart.programs.run("pool", "serve", "--data", str(apart.host(host)), "--role", role, check=False)
    assert done.returncode != 0
    assert "ready" not in done.stdout
    assert f"{missing} is missing" in done.stderr


def test_an_export_never_writes_into_a_folder_that_has_something(apart: Apart) -> None:
    host = apart.host(Role.SEQUENCER)
    before = {file: file.read_bytes() for file in host.rglob("*") if file.is_file()}
    command = ("keys", "export", "--data", str(apart.data), "--role", "registry", "--out", str(host))
    done = apart.programs.run("pool", *command, check=False)
    assert done.returncode != 0
    assert "not empty" in done.stderr
    assert {file: file.read_bytes() for file in host.rglob("*") if file.is_file()} == before


def test_each_role_works_with_its_keys_alone(apart: Apart) -> None:
    engine = sa.create_engine((apart.folder / "address").read_text(), poolclass=sa.NullPool)

    def count(where: str) -> int:
        with engine.connect() as connection:
            return int(connection.execute(sa.text(f"SELECT count(*) FROM audit_entry WHERE {where}")).scalar_one())

    # Whatever a process wanted beyond its folder must not come from the folder of the pool.
    token = (apart.data / "bootstrap-token").read_text()
    authority = (apart.data / "ca" / "authority.crt").read_bytes()
    apart.data.rename(apart.folder / "away")
    (apart.data / "ca").mkdir(parents=True)
    (apart.data / "ca" / "authority.crt").write_bytes(authority)
    (apart.data / "bootstrap-token").write_text(token)
    with ExitStack() as stack:
        sequencer = stack.enter_context(apart.serving(Role.SEQUENCER))
        apart.addresses = stack.enter_context(apart.serving(Role.GATEWAY))
        registry = stack.enter_context(apart.serving(Role.REGISTRY))
        assert httpx.get(f"http://{sequencer['metrics']}/readyz", timeout=PATIENCE).status_code == 200
        apart.set_up()
        office = apart.department("公安局")
        token = apart.people.tokens["authority-1"]
        answer = httpx.get(
            f"https://{registry['registry']}/subjects", headers={"Authorization": f"Bearer {token}"},
            verify=ssl.create_default_context(cafile=apart.data / "ca" / "authority.crt"), timeout=PATIENCE,
        )  # fmt: skip
        assert answer.status_code == 200, answer.text
        office.enrol("source")
        wait_for(lambda: count("leaf_index IS NULL") == 0, "every entry has its place in the log")
        wait_for(lambda: count("leaf_index IS NOT NULL AND action LIKE '%digest%'"), "the sequencer's digest is in it")
        assert count("refused") == 0
    for role in Role:
        assert "may not" not in apart.said(role)
        assert "upkeep_failed" not in apart.said(role)
        assert "entry_refused" not in apart.said(role)
    with engine.connect() as connection:
        registered = connection.execute(sa.text("SELECT role FROM audit_process")).scalars().all()
    assert {"gateway", "registry", "sequencer"} <= set(registered) <= set(ENTRY_ROLES)
    engine.dispose()
