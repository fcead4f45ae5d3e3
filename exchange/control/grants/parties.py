"""Parties of a grant: what they may ask for, the zones between them, and that a contractor gets no plaintext."""

from exchange.access.decision.parties import DepartmentProfile, refuse_crossing, refuse_plaintext
from exchange.access.decision.policy import Resource
from exchange.authorization.attributes import AttributeProvider
from registry.database.unit_of_work import Reader
from schemas.access import Grant
from schemas.errors import InvalidError, Reason, RefusedError
from schemas.names import Topic

__all__ = ["check_asks", "check_plaintext", "check_zones", "profile_of", "seen_resource"]


def profile_of(attributes: AttributeProvider, reader: Reader, department: str) -> DepartmentProfile | None:
    """Return what a department is; None where it is not known."""
    return attributes.profiles(reader, [department]).get(department)


def check_asks(profile: DepartmentProfile | None) -> None:
    """Check that a department is a consumer, where it is known what it is.

    Raises:
        RefusedError: DEPARTMENT_KIND.
    """
    if profile is not None and not profile.asks:
        raise RefusedError(Reason.DEPARTMENT_KIND, "the department is no consumer; only a consumer asks")


def seen_resource(resource: Resource | None, topic: Topic, department: str) -> Resource:
    """Return a resource that a department sees; of one that it does not see, it learns nothing by asking for it.

    Raises:
        InvalidError: RESOURCE_UNKNOWN, there is none, or it is another department's and not in the catalogue.
    """
    if resource is None or not (resource.in_catalogue or resource.provider == department):
        raise InvalidError(
            Reason.RESOURCE_UNKNOWN,
            f"got the topic {topic}, which is not in the catalogue; see `pool catalogue`",
        )
    return resource


def check_plaintext(attributes: AttributeProvider, reader: Reader, grant: Grant) -> None:
    """Check that a contractor gets no personal field in plaintext.

    Raises:
        RefusedError: CONTRACTOR_PLAINTEXT.
    """
    refusal = refuse_plaintext(attributes.plaintext(reader, grant))
    if refusal is not None:
        raise RefusedError(refusal.reason, refusal.explanation)


def check_zones(attributes: AttributeProvider, reader: Reader, grant: Grant) -> None:
    """Check that a grant names the zones that it crosses now, or crosses none.

    Raises:
        RefusedError: ZONE_MISMATCH.
    """
    consumer = profile_of(attributes, reader, grant.consumer)
    resource = attributes.resource_of(reader, grant.topic)
    refusal = refuse_crossing(
        grant,
        consumer_zone="" if consumer is None else consumer.zone,
        resource_zone="" if resource is None else resource.zone,
    )
    if refusal is not None:
        raise RefusedError(refusal.reason, refusal.explanation)
