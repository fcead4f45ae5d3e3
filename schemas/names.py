"""Validated names: resources, topics, lanes and connectors, as they cross a process boundary.

A resource's name is chosen once and contains no department (departments merge and are renamed). From it follow
the topic `<name>.v<major>` and the subject `<topic>-value`. A lane is one connector writing one topic: the unit
of order and of exactly-once append.
"""

import re
from dataclasses import dataclass
from typing import Self

from schemas.errors import InvalidError, Reason

__all__ = ["ConnectorId", "Lane", "ResourceName", "Topic"]

_RESOURCE = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_TOPIC = re.compile(r"(?P<name>[a-z0-9-]+)\.v(?P<major>[1-9][0-9]{0,3})")
_CONNECTOR = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_MAX_NAME = 80  # characters; with ".v9999-value" and a lane's prefix it stays below Kafka's 249


class ResourceName(str):
    """Name of an information resource (信息资源): lower-case words of `[a-z0-9]` joined by `-`.

    Raises:
        InvalidError: NAME_INVALID, when it has another form or is longer than 80 characters.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:  # noqa: D102 - the class says it
        if len(text) > _MAX_NAME or not _RESOURCE.fullmatch(text):
            raise InvalidError(
                Reason.NAME_INVALID,
                f"got the resource name {text[:_MAX_NAME]!r}; expected lower-case words of a-z and 0-9 joined "
                f"by '-', {_MAX_NAME} characters at most, such as 'population'",
            )
        return super().__new__(cls, text)


class ConnectorId(str):
    """Name of a connector within its department, of the same form as a resource's.

    Raises:
        InvalidError: NAME_INVALID.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:  # noqa: D102 - the class says it
        if len(text) > _MAX_NAME or not _CONNECTOR.fullmatch(text):
            raise InvalidError(
                Reason.NAME_INVALID,
                f"got the connector name {text[:_MAX_NAME]!r}; expected lower-case words of a-z and 0-9 joined "
                f"by '-', {_MAX_NAME} characters at most, such as 'civil-affairs-drop'",
            )
        return super().__new__(cls, text)


@dataclass(frozen=True, slots=True, order=True)
class Topic:
    """One resource in one major version of its schema; written `population.v1`."""

    name: ResourceName
    major: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `<name>.v<major>`.

        Raises:
            InvalidError: NAME_INVALID.
        """
        match = _TOPIC.fullmatch(text)
        if match is None:
            raise InvalidError(
                Reason.NAME_INVALID,
                f"got the topic {text[:_MAX_NAME]!r}; expected <resource>.v<major>, such as 'population.v1'",
            )
        return cls(ResourceName(match["name"]), int(match["major"]))

    @property
    def subject(self) -> str:
        """Return the registry's subject of the topic's values (TopicNameStrategy of Confluent's serializers)."""
        return f"{self}-value"

    def __str__(self) -> str:
        return f"{self.name}.v{self.major}"


@dataclass(frozen=True, slots=True, order=True)
class Lane:
    """One connector of one department writing one topic: the unit of order and of exactly-once append."""

    department: str  # internal id, a UUID in its usual text form
    connector: ConnectorId
    topic: Topic

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `<department>/<connector>/<topic>`.

        Raises:
            InvalidError: NAME_INVALID.
        """
        parts = text.split("/")
        if len(parts) != 3:
            raise InvalidError(
                Reason.NAME_INVALID, f"got the lane {text[:250]!r}; expected <department>/<connector>/<topic>"
            )
        return cls(parts[0], ConnectorId(parts[1]), Topic.parse(parts[2]))

    def __str__(self) -> str:
        return f"{self.department}/{self.connector}/{self.topic}"
