"""What the Kafka client makes of answers that no gateway has caused."""

import time
from pathlib import Path
from typing import Any

import pytest

from exchange.broker.kafka.client import KafkaClient
from exchange.broker.kafka.settings import KafkaSettings
from schemas.errors import CorruptError, Reason
from schemas.names import Topic


class Spoiled:
    """A group whose metadata another client has written: librdkafka then reads on into what is no text."""

    def committed(self, _: object, __: float) -> Any:
        return b"\xb9\x00".decode()


def test_metadata_that_is_no_text_is_corrupt_and_not_an_error_of_the_library() -> None:
    client = KafkaClient(KafkaSettings(bootstrap="127.0.0.1:1", ca=Path("a"), certificate=Path("b"), key=Path("c")))
    group: Any = Spoiled()
    with pytest.raises(CorruptError) as refused:
        client.committed_offset(group, Topic.parse("permits.v1"), time.monotonic() + 5)
    assert refused.value.reason is Reason.LOG_CORRUPT
