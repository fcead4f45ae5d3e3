"""Services of subjects over one store: lookup, registration, deletion, configuration."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from registry.avro.compatibility import Compatibility
from registry.database.unit_of_work import Reader, UnitOfWork
from registry.governance.element_references import ElementReferences
from registry.subjects.configuration import Configuration
from registry.subjects.deletion import Deletion
from registry.subjects.lookup import SchemaLookup
from registry.subjects.registration import Registration, never_approved, no_other_majors
from registry.subjects.store import SubjectReader, SubjectWriter
from schemas.names import Topic

__all__ = ["SubjectServices"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectServices:
    """The services that the REST API, the pool and its commands call."""

    lookup: SchemaLookup
    registration: Registration
    deletion: Deletion
    configuration: Configuration

    @classmethod
    def over(
        cls,
        reader: SubjectReader,
        writer: SubjectWriter,
        *,
        governed: Callable[[Reader, str], bool],
        other_majors: Callable[[Reader, str], Sequence[Topic]] = no_other_majors,
        strict: bool = False,
        validate: bool = True,
        level: Compatibility = Compatibility.BACKWARD,
        approved: Callable[[UnitOfWork, str, bytes, Sequence[str]], bool] = never_approved,
        elements: ElementReferences | None = None,
    ) -> Self:
        """Build the services; see `Registration` and `Configuration` for the parameters."""
        configuration = Configuration(reader, writer, level=level)
        lookup = SchemaLookup(reader)
        registration = Registration(
            reader,
            writer,
            lookup,
            configuration,
            governed=governed,
            other_majors=other_majors,
            strict=strict,
            validate=validate,
            approved=approved,
            elements=elements,
        )
        return cls(
            lookup=lookup,
            registration=registration,
            deletion=Deletion(reader, writer, configuration, governed=governed),
            configuration=configuration,
        )
