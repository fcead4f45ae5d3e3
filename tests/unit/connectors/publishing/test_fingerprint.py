"""The fingerprint of a publication is stored in ledgers: it stays what earlier versions computed."""

from connectors.config.config import ConnectorConfig
from connectors.config.lint import parse_config
from connectors.mapping.mapping import Column
from connectors.publishing.publication import Publication
from connectors.runtime import assembly
from schemas.names import Topic

SEMANTICS = b"\x01" * 8
CONFIG = """
version: 1
connector: drop
exchange: { identity: identity/ }
source: { kind: files, path: drop/ }
publish:
  - resource: permits.v1
    columns:
      note: { null_values: ["-"], as: remark }
"""


def test_of_the_same_publication_it_is_the_same_as_ever() -> None:
    columns = {"b": Column(target="x", strip=(",",), values={"1": "A"}), "a": Column()}
    publication = Publication(
        topic=Topic.parse("permits.v1"),
        columns=columns,
        null_values=("-", ""),
        on_duplicate="last",
        source_format="utf-8 , everything",
    )
    assert publication.fingerprint(SEMANTICS).hex() == "04f722170b63ce50"


def test_of_the_same_configuration_it_is_the_same_as_ever() -> None:
    config = parse_config(CONFIG)
    assert isinstance(config, ConnectorConfig)
    assert assembly.publication(config.publish[0]).fingerprint(SEMANTICS).hex() == "5cbdbab6d62bc645"
