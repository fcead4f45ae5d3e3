"""Version check: Kafka 4.3.0 to 4.4.0 can lose acknowledged transactions (KAFKA-20734).

A transaction coordinator of those versions that restarts while partitions have no leader skips their commit markers
and records the transaction as complete: acknowledged records stay invisible to readers of committed records, or are
lost to them permanently. A broker does not report its release; it reports the highest `metadata.version` that it
supports, which rises with every minor release. A later patch release with the fix cannot be distinguished from one
without, so the check can be set to warn.
"""

from collections.abc import Callable

from kafka.admin import KafkaAdminClient

from exchange.broker.kafka.client import KafkaClient
from exchange.broker.kafka.settings import OnBrokenVersion
from schemas.errors import InvalidError, Reason

__all__ = ["check_broker_version"]

_BROKEN = range(30, 34)  # metadata.version 4.3-IV0 to 4.4-IV2


def check_broker_version(client: KafkaClient, warn: Callable[[str], None]) -> int:
    """Check the brokers' version; return the highest metadata.version that they support.

    Args:
        client: of the gateway.
        warn: takes one sentence for the operator.

    Raises:
        InvalidError: CONFIG_INVALID, a broken version and a setting that refuses it: `on_broken_version` is
            `refuse`, or `auto` with a replication of 1, where nothing can repair the loss.
        UnavailableError: BROKER_UNAVAILABLE.
    """
    supported = client.with_admin("report its version", _highest)
    if supported in _BROKEN:
        settings = client.settings
        text = (
            f"these brokers support metadata.version {supported}, so they are Kafka 4.3 or 4.4, of which 4.3.0 to "
            "4.4.0 can lose acknowledged records (KAFKA-20734); run 4.2.1"
        )
        refuse = settings.on_broken_version == OnBrokenVersion.REFUSE or (
            settings.on_broken_version == OnBrokenVersion.AUTO and settings.replication == 1
        )
        if refuse:
            raise InvalidError(Reason.CONFIG_INVALID, f"{text}, or set on_broken_version to 'warn' to serve with them")
        warn(text)
    return supported


def _highest(client: KafkaAdminClient) -> int:
    return int(client.describe_features().get("metadata.version", {}).get("supported", (0, 0))[1])
