"""Addresses: enrolment from another machine (a network namespace of its own), and roles apart on one machine.

One pool, whose three roles are processes of their own, with the listeners of departments on every address.
"""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from exchange.config import Config
from schemas.invitation import Invitation
from tests.kit.patience import PATIENCE
from tests.kit.share import needs_package
from tests.kit.world import postgres
from tests.kit.world.world import BIN, Office, World

pytestmark = [pytest.mark.e2e, pytest.mark.postgres]
ROLES = ("gateway", "registry", "sequencer")
HELLO = """
import sys
from pathlib import Path
from exchange.client import Identity, PoolClient
with PoolClient(Identity.load(Path(sys.argv[1]))) as pool:
    print(pool.hello().pool_id)
"""


class Apart(World):
    """A pool whose roles are processes of their own on one machine."""

    def __init__(self, folder: Path, url: sa.URL, host: str) -> None:
        super().__init__(folder)
        address = folder / "address"
        address.write_text(url.render_as_string(hide_password=False))
        arguments = ("--pool-id", "city", "--host", host, "--database", f"${{file:{address}}}")
        self.programs.run("pool", "init", "--data", str(self.data), *arguments)
        self.file = self.data / "pool.toml"
        text = self.file.read_text().replace(":7443", ":0")
        listen = 'grpc = "0.0.0.0:0"\nenrolment = "0.0.0.0:0"\nhttp = "127.0.0.1:0"\nregistry = "127.0.0.1:0"\n'
        apart = "".join(f'[roles.{role}.listen]\nmetrics = "127.0.0.1:0"\n' for role in ROLES)
        self.file.write_text(f'{text}\n[listen]\n{listen}metrics = "127.0.0.1:1"\n{apart}')

    @contextmanager
    def serving(self, role: str) -> Iterator[subprocess.Popen[str]]:
        command = self.programs.command("pool", "serve", "--data", str(self.data), "--role", role)
        with (self.folder / f"{role}.log").open("a") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("ready "), (line, (self.folder / f"{role}.log").read_text()[-2000:])
            self.addresses |= json.loads(line.removeprefix("ready "))
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=PATIENCE)

    def ports(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.data / "ports.json").read_text())
        return found


@pytest.fixture(scope="module")
def other_machine() -> Iterator[tuple[str, list[str]]]:
    """Another machine: this one's address as it sees it, and the beginning of a command that runs there."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        yield "127.0.0.2", []
        return
    number = os.getpid() % 60_000
    name, here, there = f"pool-{number}", f"vp{number}a", f"vp{number}b"
    subnet = f"10.{200 + number // 16_384}.{number // 64 % 256}.{number % 64 * 4}".rsplit(".", 1)
    mine, other = (f"{subnet[0]}.{int(subnet[1]) + last}" for last in (1, 2))
    steps = (
        f"ip netns add {name}", f"ip link add {here} type veth peer name {there}", f"ip link set {there} netns {name}",
        f"ip address add {mine}/30 dev {here}", f"ip link set {here} up",
        f"ip -n {name} address add {other}/30 dev {there}", f"ip -n {name} link set {there} up",
    )  # fmt: skip
    made = all(subprocess.run(step.split(), check=False, capture_output=True).returncode == 0 for step in steps)
    try:
        yield (mine, ["ip", "netns", "exec", name]) if made else ("127.0.0.2", [])
    finally:
        for step in (f"ip link del {here}", f"ip netns del {name}"):
            subprocess.run(step.split(), check=False, capture_output=True)


@pytest.fixture(scope="module")
def city(other_machine: tuple[str, list[str]], postgres_server: sa.URL) -> Iterator[Apart]:
    folder = Path(tempfile.mkdtemp(prefix="pool-addresses-"))
    with postgres.fresh_database(postgres_server) as url, ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        city = Apart(folder, url, other_machine[0])
        for role in ROLES:
            stack.enter_context(city.serving(role))
        city.set_up()
        yield city


@pytest.fixture(scope="module")
def office(city: Apart) -> Office:
    return city.department("公安局")


def test_roles_apart_on_one_machine_have_metrics_of_their_own_and_ports_json_names_them_all(city: Apart) -> None:
    ports = city.ports()
    assert ports["processes"].keys() == set(ROLES)
    shown = {role: ports["processes"][role]["addresses"] for role in ROLES}
    metrics = {one["metrics"] for one in shown.values()}
    assert len(metrics) == len(ROLES)
    for address in metrics:
        assert httpx.get(f"http://{address}/metrics", timeout=PATIENCE).status_code == 200
    assert {"grpc", "enrolment", "http"} <= shown["gateway"].keys()
    assert ports["http"] == shown["gateway"]["http"]
    assert ports["registry"] == shown["registry"]["registry"]


def test_a_second_process_of_a_role_is_told_which_section_gives_it_an_address(city: Apart) -> None:
    taken = city.ports()["processes"]["registry"]["addresses"]["registry"]
    text = city.file.read_text()
    city.file.write_text(text.replace('registry = "127.0.0.1:0"', f'registry = "{taken}"'))
    try:
        done = city.programs.run("pool", "serve", "--data", str(city.data), "--role", "registry", check=False)
    finally:
        city.file.write_text(text)
    assert done.returncode == 1
    assert "[roles.ROLE.listen]" in done.stderr


def test_a_process_that_ends_leaves_the_others_in_ports_json(city: Apart) -> None:
    with city.serving("sequencer") as second:  # several are safe
        assert city.ports()["processes"]["sequencer"]["pid"] == second.pid
    assert city.ports()["processes"].keys() == {"gateway", "registry"}


def test_an_invitation_names_an_address_that_another_machine_can_call(
    city: Apart, office: Office, other_machine: tuple[str, list[str]]
) -> None:
    invitation = Invitation.decode(city.people.invite(city, office.id, "drop"))
    port = city.addresses["enrolment"].rsplit(":", 1)[1]
    assert city.addresses["enrolment"].startswith("0.0.0.0:")
    assert invitation.address == f"{other_machine[0]}:{port}"


def test_a_connector_enrols_and_calls_from_another_machine(
    city: Apart, office: Office, other_machine: tuple[str, list[str]]
) -> None:
    needs_package("iproute2", program="ip")
    there = other_machine[1]
    if not there:
        pytest.skip("got no second network namespace: `ip netns add` (Debian package iproute2) needs to run as root")
    identity = city.folder / "identity"
    token = city.people.invite(city, office.id, "ward")
    enrolling = [*there, str(BIN / "pool-connect"), "enrol", "-", "--identity", str(identity), "--connector", "ward"]
    done = subprocess.run(enrolling, input=token + "\n", capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    said = subprocess.check_output([*there, sys.executable, "-c", HELLO, str(identity)], text=True, timeout=PATIENCE)
    assert said.strip() == "city"


def test_an_address_of_its_own_goes_before_the_gateway_s_host_and_the_certificate_covers_it(tmp_path: Path) -> None:
    file = tmp_path / "pool.toml"
    terms = 'pool_id = "city"\norigin = "city/audit"\ngateway = "pool.example.gov:7443"\n'
    file.write_text(f'{terms}enrolment = "join.example.gov:443"\n[listen]\nhttp = "10.0.0.5:7080"\n')
    config = Config.load(tmp_path)
    assert config.invitation_address("0.0.0.0:7444") == "join.example.gov:443"
    names = ["pool.example.gov", "join.example.gov", "127.0.0.1", "10.0.0.5", "localhost", "::1"]
    assert config.server_names() == names


def test_root_is_told_which_folder_the_server_s_user_may_not_enter_before_anything_is_made() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root runs the embedded PostgreSQL as another user")
    folder = Path(tempfile.mkdtemp(prefix="pool-closed-"))  # mode 0700
    try:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        data = folder / "deep" / "pool"
        done = World(folder).programs.run("pool", "init", "--data", str(data), "--pool-id", "city", check=False)
        assert done.returncode == 1
        assert f"{folder} may not be entered by nobody" in done.stderr
        assert f"chmod o+x {folder}" in done.stderr
        assert "ordinary user" in done.stderr
        assert list(folder.iterdir()) == []
    finally:
        shutil.rmtree(folder)
