"""The certificate authority: what it issues, to whom a certificate belongs, and what it does not fall for."""

import ipaddress
import ssl
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from exchange.identity.authority import Authority, CertificateAuthenticator
from schemas.access import Actor, ActorKind, Role
from schemas.errors import InvalidError, Reason, RefusedError
from tests.kit.cases.grants import CONSUMER, NOW, PROVIDER
from tests.kit.world.certificates import PrivateKey, a_request, p256, pem

DAY = timedelta(days=1)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path / "authority", "city-pool", NOW)


@pytest.fixture
def peers(authority: Authority) -> CertificateAuthenticator:
    return CertificateAuthenticator("city-pool", authority.certificate)


def issue(authority: Authority, key: PrivateKey | None = None, department: str = CONSUMER) -> bytes:
    return authority.client(a_request(key or p256()), department=department, connector="benefits", now=NOW).certificate


def names_of(certificate: bytes) -> x509.SubjectAlternativeName:
    leaf = x509.load_pem_x509_certificate(certificate)
    return leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def test_a_certificate_says_which_connector_of_which_department_holds_it(
    authority: Authority, peers: CertificateAuthenticator
) -> None:
    issued = authority.client(a_request(p256()), department=CONSUMER, connector="benefits", now=NOW)
    expected = Actor(
        kind=ActorKind.MACHINE, id="benefits", department=CONSUMER, role=Role.CONNECTOR, certificate=issued.serial
    )
    der = x509.load_pem_x509_certificate(issued.certificate).public_bytes(serialization.Encoding.DER)
    assert peers.authenticate(issued.certificate, NOW) == peers.authenticate(der, NOW) == expected
    uri = f"pool://city-pool/department/{CONSUMER}/connector/benefits"
    assert list(names_of(issued.certificate)) == [x509.UniformResourceIdentifier(uri)]


def test_a_certificate_holds_thirty_days(authority: Authority, peers: CertificateAuthenticator) -> None:
    issued = authority.client(a_request(p256()), department=CONSUMER, connector="benefits", now=NOW)
    assert issued.not_after == NOW + 30 * DAY
    assert peers.authenticate(issued.certificate, NOW + 30 * DAY - timedelta(seconds=1))
    assert peers.authenticate(issued.certificate, issued.not_before)
    for moment in (NOW + 30 * DAY, NOW - timedelta(minutes=6)):
        with pytest.raises(RefusedError) as error:
            peers.authenticate(issued.certificate, moment)
        assert error.value.reason is Reason.CERTIFICATE_EXPIRED


def test_of_a_request_only_the_public_key_is_taken(authority: Authority, peers: CertificateAuthenticator) -> None:
    key = p256()
    greedy = a_request(
        key,
        common_name="gateway",
        extensions=(
            (x509.SubjectAlternativeName([x509.DNSName("gateway"), x509.UniformResourceIdentifier(
                f"pool://city-pool/department/{PROVIDER}/connector/owner")]), True),
            (x509.BasicConstraints(ca=True, path_length=None), True),
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        ),
    )  # fmt: skip
    certificate = authority.client(greedy, department=CONSUMER, connector="benefits", now=NOW).certificate
    leaf = x509.load_pem_x509_certificate(certificate)
    assert leaf.public_key() == key.public_key()
    assert [attribute.value for attribute in leaf.subject] == ["connector"]
    assert len(names_of(certificate)) == 1
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert peers.authenticate(certificate, NOW).department == CONSUMER


@pytest.mark.parametrize(
    "make",
    [
        ed25519.Ed25519PrivateKey.generate,
        lambda: ec.generate_private_key(ec.SECP384R1()),
        lambda: rsa.generate_private_key(65537, 2048),
    ],
    ids=["ed25519", "p384", "rsa"],
)
def test_another_kind_of_key_is_refused(authority: Authority, make: Callable[[], PrivateKey]) -> None:
    with pytest.raises(InvalidError, match="P-256"):
        issue(authority, make())


def test_a_request_that_does_not_prove_its_key_is_refused(authority: Authority) -> None:
    request = bytearray(a_request(p256()))
    request[-1] ^= 1
    with pytest.raises(InvalidError, match="signature"):
        authority.client(bytes(request), department=CONSUMER, connector="benefits", now=NOW)


@pytest.mark.parametrize("junk", [b"", b"\x30\x80", b"-----BEGIN CERTIFICATE REQUEST-----", bytes(1_000)])
def test_junk_is_refused_as_junk(authority: Authority, junk: bytes) -> None:
    with pytest.raises(InvalidError) as error:
        authority.client(junk, department=CONSUMER, connector="benefits", now=NOW)
    assert error.value.reason is Reason.REQUEST_INVALID


@pytest.mark.parametrize(
    ("department", "connector"),
    [
        ("a/connector/b", "benefits"),
        ("", "benefits"),
        ("a b", "benefits"),
        (CONSUMER, "x/y"),
        (CONSUMER, ""),
        ("部", "x"),
    ],
)
def test_a_name_cannot_break_out_of_the_uri(authority: Authority, department: str, connector: str) -> None:
    with pytest.raises(InvalidError) as error:
        authority.client(a_request(p256()), department=department, connector=connector, now=NOW)
    assert error.value.reason is Reason.NAME_INVALID


def forged(
    authority: Authority,
    *,
    uri: str = f"pool://city-pool/department/{CONSUMER}/connector/benefits",
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
    names: list[x509.GeneralName] | None = None,
    ca: bool = False,
    signer: ec.EllipticCurvePrivateKey | None = None,
) -> bytes:
    """A certificate that carries the authority's name, signed by it unless another signer is given."""
    key = p256()
    alternatives = [x509.UniformResourceIdentifier(uri)] if names is None else names
    return (
        x509.CertificateBuilder(
            authority._certificate.subject,
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "connector")]),
            key.public_key(),
            x509.random_serial_number(),
        )
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .sign(signer or authority._key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )


def test_a_certificate_that_the_authority_did_not_sign_is_nobody(
    authority: Authority, peers: CertificateAuthenticator, tmp_path: Path
) -> None:
    other = Authority.create(tmp_path / "other", "city-pool", NOW)
    for certificate in (
        issue(other),
        forged(authority, signer=p256()),
        other.certificate,
        authority.certificate,
        authority.server(["localhost"], NOW).certificate,
        b"",
        b"-----BEGIN CERTIFICATE-----",
        bytes(100),
    ):
        with pytest.raises(RefusedError) as error:
            peers.authenticate(certificate, NOW)
        assert error.value.reason is Reason.NO_IDENTITY


def test_a_certificate_of_another_shape_is_nobody_even_if_signed(
    authority: Authority, peers: CertificateAuthenticator
) -> None:
    uri = f"pool://city-pool/department/{CONSUMER}/connector/benefits"
    assert peers.authenticate(forged(authority), NOW)
    for certificate in (
        forged(authority, uri=uri.replace("city-pool", "other-pool")),
        forged(authority, uri=uri + "/x"),
        forged(authority, uri="https" + uri.removeprefix("pool")),
        forged(authority, usage=ExtendedKeyUsageOID.SERVER_AUTH),
        forged(authority, ca=True),
        forged(authority, names=[x509.UniformResourceIdentifier(uri), x509.UniformResourceIdentifier(uri + "2")]),
        forged(authority, names=[x509.UniformResourceIdentifier(uri), x509.DNSName("gateway")]),
        forged(authority, names=[x509.DNSName("gateway")]),
    ):
        with pytest.raises(RefusedError) as error:
            peers.authenticate(certificate, NOW)
        assert error.value.reason is Reason.NO_IDENTITY


def test_the_time_is_looked_at_every_time(authority: Authority, peers: CertificateAuthenticator) -> None:
    certificate = issue(authority)
    for _ in range(2):
        assert peers.authenticate(certificate, NOW)
        with pytest.raises(RefusedError):
            peers.authenticate(certificate, NOW + 31 * DAY)


def test_a_certificate_is_parsed_once_and_those_of_a_bounded_number_are_remembered(
    authority: Authority, peers: CertificateAuthenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[bytes] = []

    def load(certificate: bytes) -> x509.Certificate:
        parsed.append(certificate)
        return load_pem(certificate)

    load_pem = x509.load_pem_x509_certificate
    certificate = issue(authority)
    monkeypatch.setattr("exchange.identity.authority.x509.load_pem_x509_certificate", load)
    for _ in range(3):  # each call of a connection: gRPC makes the text anew
        peers.authenticate(bytes(bytearray(certificate)), NOW)
    assert parsed == [certificate]
    assert peers._verify_cached.cache_info().maxsize == 8_192


def test_a_server_s_certificate_names_hosts_and_addresses(authority: Authority) -> None:
    server = authority.server(["pool.example.gov", "127.0.0.1", "::1"], NOW)
    assert list(names_of(server.certificate)) == [
        x509.DNSName("pool.example.gov"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.IPAddress(ipaddress.ip_address("::1")),
    ]
    assert server.not_after == NOW + timedelta(days=397)
    for wrong in ([], ["bücher.example"]):
        with pytest.raises(InvalidError):
            authority.server(wrong, NOW)


def test_no_certificate_outlives_the_root(authority: Authority) -> None:
    late = NOW + timedelta(days=3640)
    root = x509.load_pem_x509_certificate(authority.certificate)
    issued = authority.client(a_request(p256()), department=CONSUMER, connector="benefits", now=late)
    assert issued.not_after == root.not_valid_after_utc
    assert root.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0


def test_an_authority_is_kept_closed_and_never_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "authority"
    made = Authority.create(folder, "city-pool", NOW)
    assert stat.S_IMODE((folder / "authority.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert Authority.load(folder, "city-pool").certificate == made.certificate
    with pytest.raises(InvalidError) as error:
        Authority.create(folder, "city-pool", NOW)
    assert error.value.reason is Reason.ALREADY_EXISTS
    assert Authority.load(folder, "city-pool").certificate == made.certificate
    (folder / "authority.key").chmod(0o640)
    with pytest.raises(InvalidError, match="open to others"):
        Authority.load(folder, "city-pool")


def test_an_authority_s_two_files_belong_together(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    Authority.create(one, "city-pool", NOW)
    Authority.create(other, "city-pool", NOW)
    (one / "authority.crt").write_bytes((other / "authority.crt").read_bytes())
    with pytest.raises(InvalidError, match="belong together"):
        Authority.load(one, "city-pool")
    (one / "authority.key").unlink()
    with pytest.raises(InvalidError):
        Authority.load(one, "city-pool")


# over a real connection; certificates are of this moment here, as TLS looks at the system's clock


def shake_hands(authority: Authority, certificate: bytes, key: PrivateKey, folder: Path) -> bool:
    server_identity = authority.server(["localhost"], now_really())
    files = {
        "ca": authority.certificate,
        "server.crt": server_identity.certificate,
        "server.key": server_identity.key,
        "client.crt": certificate,
        "client.key": pem(key),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "ca"))
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_cert_chain(folder / "server.crt", folder / "server.key")
    client = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(folder / "ca"))
    client.load_cert_chain(folder / "client.crt", folder / "client.key")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname="localhost"),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    finished = [False, False]
    for _ in range(10):
        for i, end in enumerate(ends):
            try:
                end.do_handshake()
                finished[i] = True
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError:
                return False
    return all(finished)


def now_really() -> datetime:
    return datetime.now(UTC)


def test_tls_takes_a_connector_s_certificate_and_no_server_s(tmp_path: Path) -> None:
    now, key = now_really(), p256()
    authority = Authority.create(tmp_path / "authority", "city-pool", now)
    issued = authority.client(a_request(key), department=CONSUMER, connector="benefits", now=now)
    assert shake_hands(authority, issued.certificate, key, tmp_path)
    server = authority.server(["localhost"], now)
    server_key = serialization.load_pem_private_key(server.key, None)
    assert isinstance(server_key, ec.EllipticCurvePrivateKey)
    assert not shake_hands(authority, server.certificate, server_key, tmp_path)


def test_grpc_hands_over_the_certificate_that_identifies_the_caller(tmp_path: Path) -> None:
    now, key = now_really(), p256()
    authority = Authority.create(tmp_path / "authority", "city-pool", now)
    issued = authority.client(a_request(key), department=CONSUMER, connector="benefits", now=now)
    listener = authority.server(["localhost"], now)
    seen: list[Actor] = []

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        seen.append(
            CertificateAuthenticator("city-pool", authority.certificate).authenticate(
                context.auth_context()["x509_pem_cert"][0], now
            )
        )
        return request

    handler = grpc.method_handlers_generic_handler("test", {"Echo": grpc.unary_unary_rpc_method_handler(answer)})
    server = grpc.server(ThreadPoolExecutor(1), handlers=[handler])
    port = server.add_secure_port(
        "localhost:0",
        grpc.ssl_server_credentials(
            [(listener.key, listener.certificate)], authority.certificate, require_client_auth=True
        ),
    )
    server.start()
    try:
        credentials = grpc.ssl_channel_credentials(authority.certificate, pem(key), issued.certificate)
        with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
            assert channel.unary_unary("/test/Echo")(b"hello", timeout=10) == b"hello"
    finally:
        server.stop(grace=5).wait()
    assert seen[0].department == CONSUMER
    assert seen[0].certificate == issued.serial
