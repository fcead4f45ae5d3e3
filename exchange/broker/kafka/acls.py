r"""Access control lists (ACLs) of Kafka: one file is the complete list, and applying it makes Kafka match it.

Kafka denies what no rule allows (`allow.everyone.if.no.acl.found=false`). The list names the gateway alone:
departments have no principal on Kafka, and the brokers themselves are the one super user. Applying the list adds what
is missing and removes what it does not contain, so that a rule added by hand is gone after the next start.

    python -m exchange.broker.kafka.acls --bootstrap localhost:9092 --ca ca.pem --certificate broker.crt \\
        --key broker.key deploy/kafka/acls.txt
"""

import argparse
import sys
from pathlib import Path

from kafka import errors as admin_errors
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    KafkaAdminClient,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
)

from exchange.broker.kafka.settings import KafkaSettings, admin, unavailable
from schemas.errors import InvalidError, Reason, UnavailableError

__all__ = ["EVERY_RULE", "apply_acls", "main", "parse_acls"]

EVERY_RULE = ACLFilter(
    principal=None,
    host=None,
    operation=ACLOperation.ANY,
    permission_type=ACLPermissionType.ANY,
    resource_pattern=ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY),
)


def parse_acls(text: str) -> frozenset[ACL]:
    """Parse rules, one a line: permission, principal, resource, pattern, name, operations joined by commas.

    Raises:
        InvalidError: CONFIG_INVALID; names the line.
    """
    rules: set[ACL] = set()
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#", 1)[0].split()
        if not words:
            continue
        try:
            permission, principal, resource, pattern, name, operations = words
            target = ResourcePattern(ResourceType[resource.upper()], name, ACLResourcePatternType[pattern.upper()])
            rules.update(
                ACL(principal, "*", ACLOperation[operation.upper()], ACLPermissionType[permission.upper()], target)
                for operation in operations.split(",")
            )
        except (ValueError, KeyError, admin_errors.KafkaError) as error:
            raise InvalidError(
                Reason.CONFIG_INVALID,
                f"got an access rule in line {number} that does not fit; expected six words: allow or deny, "
                "a principal, a resource type, literal or prefixed, a name, operations joined by commas",
            ) from error
    return frozenset(rules)


def apply_acls(settings: KafkaSettings, text: str) -> tuple[int, int]:
    """Make Kafka's rules exactly those of *text*; return how many were added and removed.

    The settings hold the operator's certificate: the gateway may not change rules.

    Raises:
        InvalidError: CONFIG_INVALID, a line does not fit; nothing was changed.
        UnavailableError: BROKER_UNAVAILABLE, no answer, or the certificate may not change rules.
    """
    wanted = parse_acls(text)
    client = admin(settings)
    try:
        return _reconcile(client, wanted)
    except admin_errors.KafkaError as error:
        raise unavailable(error, "change its access rules") from error
    finally:
        client.close()


def _reconcile(client: KafkaAdminClient, wanted: frozenset[ACL]) -> tuple[int, int]:
    present = frozenset(client.describe_acls(EVERY_RULE)[0])
    missing, stray = wanted - present, present - wanted
    # Add before removing: the gateway is never without its rules.
    if missing:
        failed = client.create_acls(list(missing))["failed"]
        if failed:
            raise failed[0]
    if stray:
        for _, _, error in client.delete_acls([_filter(rule) for rule in stray]):
            if error is not admin_errors.NoError:
                raise error()
    return len(missing), len(stray)


def _filter(rule: ACL) -> ACLFilter:
    target = rule.resource_pattern
    return ACLFilter(
        principal=rule.principal,
        host=rule.host,
        operation=rule.operation,
        permission_type=rule.permission_type,
        resource_pattern=ResourcePatternFilter(target.resource_type, target.resource_name, target.pattern_type),
    )


def main(arguments: list[str] | None = None) -> int:
    """Apply a file of rules; return 0 when Kafka has exactly them."""
    parser = argparse.ArgumentParser(
        prog="kafka_acls", description="Make Kafka's access rules exactly those of a file."
    )
    parser.add_argument("--bootstrap", required=True, help="host:port of some brokers, separated by commas")
    for name, what in (("ca", "Kafka's authority"), ("certificate", "the operator's certificate"), ("key", "its key")):
        parser.add_argument(f"--{name}", required=True, type=Path, help=f"PEM file of {what}")
    parser.add_argument("rules", type=Path)
    given = parser.parse_args(arguments)
    settings = KafkaSettings(bootstrap=given.bootstrap, ca=given.ca, certificate=given.certificate, key=given.key)
    try:
        added, removed = apply_acls(settings, given.rules.read_text(encoding="utf-8"))
    except (InvalidError, UnavailableError) as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    sys.stdout.write(f"access rules applied: {added} added, {removed} removed\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
