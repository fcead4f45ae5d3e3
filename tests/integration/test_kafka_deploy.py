"""What deploy/kafka ships fits together: certificates, the rule that reads them, access rules, jars, settings."""

import re
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from kafka.admin import ACLPermissionType, ResourceType

from exchange.broker.kafka.acls import parse_acls
from schemas.errors import InvalidError, Reason
from tests.kit.world.kafka import DEPLOY, ORGANISATION


def properties() -> dict[str, str]:
    lines = (DEPLOY / "server.properties").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def principal(subject: str) -> str | None:
    """Apply the shipped rule as Kafka does: the first that fits, else nobody."""
    (pattern,) = re.findall(r"^RULE:(.*)/\$1/$", properties()["ssl.principal.mapping.rules"])
    match = re.match(pattern, subject)
    return match[1] if match else None


def test_the_certificates_that_the_script_makes_are_the_principals_that_the_rules_know(tmp_path: Path) -> None:
    for _ in range(2):  # a second run keeps what is there
        subprocess.run([DEPLOY / "certificates.sh", tmp_path, "kafka.example.org", "10.0.0.1"], check=True)
    issuer = x509.load_pem_x509_certificate((tmp_path / "ca.pem").read_bytes())
    for name in ("gateway", "broker"):
        certificate = x509.load_pem_x509_certificate((tmp_path / f"{name}.crt").read_bytes())
        certificate.verify_directly_issued_by(issuer)
        assert principal(certificate.subject.rfc4514_string()) == name
    alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "kafka.example.org" in alternatives.get_values_for_type(x509.DNSName)
    assert "10.0.0.1" in map(str, alternatives.get_values_for_type(x509.IPAddress))
    assert (tmp_path / "broker.pem").read_text().startswith("-----BEGIN PRIVATE KEY-----")
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.iterdir())


@pytest.mark.parametrize("subject", ["CN=gateway", f"CN=gateway,O={ORGANISATION},C=CN", f"O={ORGANISATION},CN=gateway"])
def test_another_subject_is_nobody(subject: str) -> None:
    assert principal(subject) is None


def test_every_listener_is_mutual_tls_and_what_is_not_allowed_is_denied() -> None:
    told = properties()
    assert dict(pair.split(":") for pair in told["listener.security.protocol.map"].split(",")) == {
        "GATEWAY": "SSL",
        "CONTROLLER": "SSL",
    }
    assert told["ssl.client.auth"] == "required"
    assert told["allow.everyone.if.no.acl.found"] == "false"
    assert told["super.users"] == "User:broker"
    assert told["auto.create.topics.enable"] == "false"
    assert "DEFAULT" not in told["ssl.principal.mapping.rules"]


def test_the_rules_allow_the_gateway_alone_and_no_resource_whole() -> None:
    rules = parse_acls((DEPLOY / "acls.txt").read_text())
    allowed = [rule for rule in rules if rule.permission_type is ACLPermissionType.ALLOW]
    assert {rule.principal for rule in rules} == {"User:gateway"}
    assert not [rule for rule in allowed if rule.operation.name in {"ALL", "DELETE", "ALTER", "ALTER_CONFIGS"}]
    assert not [rule for rule in allowed if rule.resource_pattern.resource_type is ResourceType.CLUSTER]


@pytest.mark.parametrize(
    "line",
    [
        "allow User:gateway topic literal *",
        "permit User:gateway topic literal * read",
        "allow User:gateway queue literal * read",
        "allow User:gateway topic literal * read,fly",
    ],
)
def test_a_rule_that_does_not_fit_is_named_by_its_line(line: str) -> None:
    with pytest.raises(InvalidError) as raised:
        parse_acls(f"# a comment\n\n{line}\n")
    assert raised.value.reason is Reason.CONFIG_INVALID
    assert "line 3" in raised.value.message


def test_the_version_is_the_pinned_one() -> None:
    assert "<version>4.2.1</version>" in (DEPLOY / "pom.xml").read_text()
    assert "apache/kafka:4.2.1" in (DEPLOY.parent / "compose.yaml").read_text()
