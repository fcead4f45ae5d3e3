"""Real Kafka for tests: one node started by deploy/kafka/start.sh, with certificates made for the occasion."""

import contextlib
import datetime as dt
import fcntl
import ipaddress
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from exchange.broker.kafka.acls import apply_acls
from exchange.broker.kafka.settings import KafkaSettings

DEPLOY = Path(__file__).resolve().parents[3] / "deploy" / "kafka"
ORGANISATION = "Data Exchange Pool Kafka"
QUICK_JAVA = "-Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto"
SHIPPED_JAVA = "-Xmx1g"
"""What start.sh takes: the second compiler knows the processor's AES, without which TLS is half of Kafka's work."""


@dataclass(frozen=True)
class Identity:
    """Certificate, key and the authority that the holder trusts, as PEM files."""

    ca: Path
    certificate: Path
    key: Path

    def chain(self, into: Path) -> Path:
        """Write key and certificate into one file, as Kafka's PEM key store wants them."""
        into.touch(mode=0o600)
        into.write_bytes(self.key.read_bytes() + self.certificate.read_bytes())
        return into


class Authority:
    """A throw-away certificate authority in a folder."""

    def __init__(self, folder: Path, name: str = "throw-away authority") -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            self._builder(self._name)
            .public_key(self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        label: str,
        subject: Sequence[tuple[x509.ObjectIdentifier, str]],
        *,
        uri: str | None = None,
        trusts: Path | None = None,
    ) -> Identity:
        """Sign a certificate with this subject, in this order of its parts; `trusts` defaults to this authority."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [
            x509.DNSName("localhost"),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        ]
        if uri is not None:
            names = [x509.UniformResourceIdentifier(uri)]
        certificate = (
            self._builder(x509.Name([x509.NameAttribute(oid, text) for oid, text in subject]))
            .public_key(key.public_key())
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        paths = Identity(trusts or self.ca, self.folder / f"{label}.crt", self.folder / f"{label}.key")
        paths.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        paths.key.touch(mode=0o600)
        paths.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return paths

    def own(self, name: str) -> Identity:
        """Sign a certificate for one of Kafka's own principals."""
        return self.issue(name, [(NameOID.ORGANIZATION_NAME, ORGANISATION), (NameOID.COMMON_NAME, name)])

    def _builder(self, subject: x509.Name) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=2))
        )


class Node:
    """One running Kafka in a scratch folder."""

    def __init__(self, folder: Path, jvm: str = QUICK_JAVA) -> None:
        self.folder = folder
        self.jvm = jvm
        self.authority = Authority(folder / "tls", "Kafka's own authority")
        broker = self.authority.own("broker")
        broker.chain(folder / "tls" / "broker.pem")
        self.operator = broker
        self.gateway = self.authority.own("gateway")
        self.port, self.controller_port = _free_ports(2)
        self.bootstrap = f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start, or start again on the same data; returns when it serves."""
        self._script("start.sh")

    def stop(self) -> None:
        """Stop cleanly."""
        self._script("stop.sh")

    def kill(self) -> None:
        """End it with SIGKILL, as a power failure would."""
        process = psutil.Process(self.pid)
        process.kill()
        process.wait(10)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop it (SIGSTOP) and let it go on at the end. All its threads stand when the body begins."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            _until_stopped(self.pid)  # on a busy machine a thread could still answer what the body asks
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    @property
    def pid(self) -> int:
        return int((self.folder / "kafka.pid").read_text())

    def running(self) -> bool:
        try:
            return psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE
        except (FileNotFoundError, psutil.NoSuchProcess):
            return False

    def settings(self, identity: Identity | None = None, **changes: object) -> KafkaSettings:
        """Return settings of a gateway, or of whoever else holds *identity*."""
        who = identity or self.gateway
        values: dict[str, object] = {
            "bootstrap": self.bootstrap,
            "ca": who.ca,
            "certificate": who.certificate,
            "key": who.key,
            "replication": 1,
            **changes,
        }
        return KafkaSettings(**values)  # type: ignore[arg-type]

    def apply_acls(self) -> None:
        """Apply the rules that deploy/kafka ships, as the operator would."""
        apply_acls(self.settings(self.operator), (DEPLOY / "acls.txt").read_text())

    def _script(self, name: str) -> None:
        environment = os.environ | {
            "POOL_KAFKA_HOME": str(self.folder),
            "POOL_KAFKA_HOST": "127.0.0.1",
            "POOL_KAFKA_PORT": str(self.port),
            "POOL_KAFKA_CONTROLLER_PORT": str(self.controller_port),
            "POOL_KAFKA_SESSION_MS": "4000",  # a killed node may come back only after its old session
            "POOL_KAFKA_JVM": self.jvm,
        }
        # Output goes to a file: the broker would keep a pipe open for as long as it lives.
        with (self.folder / "scripts.log").open("a+") as output:
            done = subprocess.run([DEPLOY / name], env=environment, stdout=output, stderr=output, check=False)
            if done.returncode:
                output.seek(0)
                raise RuntimeError(f"{name} ended with {done.returncode}: {output.read()[-2000:]}")


@contextmanager
def node(jvm: str = QUICK_JAVA) -> Iterator[Node]:
    """Start a node with the shipped rules in a scratch folder; stop and remove it at the end."""
    fetch_jars()
    folder = Path(tempfile.mkdtemp(prefix="pool-kafka-"))
    made = Node(folder, jvm)
    try:
        made.start()
        made.apply_acls()
        yield made
    finally:
        if made.running():
            made.kill()
        shutil.rmtree(folder, ignore_errors=True)


def fetch_jars() -> None:
    """Let Maven lay Kafka's jars into deploy/kafka/lib unless they are there; one process at a time."""
    lib = DEPLOY / "lib"
    with (Path(tempfile.gettempdir()) / f"pool-kafka-jars-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (lib / ".complete").exists():
            return
        subprocess.run(["mvn", "-q", "-B", "-f", DEPLOY / "pom.xml", "dependency:copy-dependencies"], check=True)
        (lib / ".complete").touch()


def _until_stopped(pid: int) -> None:
    limit = time.monotonic() + 10
    while not all(_state(thread) in {"T", None} for thread in Path(f"/proc/{pid}/task").iterdir()):
        if time.monotonic() > limit:
            raise TimeoutError(f"process {pid} goes on; expected that SIGSTOP stops all its threads within 10 s")
        time.sleep(0.001)


def _state(thread: Path) -> str | None:
    """Return the state of a thread, one letter of proc_pid_stat(5); None if it has ended."""
    try:
        return (thread / "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def _free_ports(count: int) -> list[int]:
    """Return ports that nobody has, and that the kernel gives to nobody before the node listens, or while it is down.

    The kernel gives connections, and listeners without a wish, ports from 32768 on.
    """
    found: list[int] = []
    while len(found) < count:
        port = random.SystemRandom().randrange(20_000, 32_768)  # two runs with one seed may be on one machine
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            found += [port] if port not in found else []
    return found
