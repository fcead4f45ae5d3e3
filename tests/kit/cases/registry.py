"""The registry's services over a pair of stores, for the contract tests of both."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from registry.avro.compatibility import Compatibility
from registry.directory.catalogue import Catalogue
from registry.directory.departments import Departments
from registry.directory.store import CatalogueStore, DepartmentStore
from registry.subjects.configuration import Configuration
from registry.subjects.lookup import Subjects
from registry.subjects.model import Content
from registry.subjects.store import SubjectStore
from schemas.errors import PoolError, Reason
from schemas.names import ResourceName, Topic

AT = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
TOPIC = Topic(ResourceName("population"), 1)
USCC = "11520000000000019J"
OTHER_USCC = "11520000000000027D"


@dataclass
class Stores:
    subjects: SubjectStore
    departments: DepartmentStore
    catalogue: CatalogueStore


def service(stores: Stores, level: Compatibility = Compatibility.BACKWARD, *, strict: bool = False) -> Subjects:
    catalogue = directory(stores)[1]
    return Subjects(
        stores.subjects,
        Configuration(stores.subjects, level=level),
        governed=catalogue.governs,
        strict=strict,
    )


def directory(stores: Stores) -> tuple[Departments, Catalogue]:
    ids = (f"0195-{number:04d}" for number in range(1000))
    departments = Departments(stores.departments, clock=lambda: AT, new_id=lambda: next(ids))
    return departments, Catalogue(stores.catalogue, departments, clock=lambda: AT)


def record(*fields: str, name: str = "R") -> Content:
    listed = [{"name": field, "type": ["null", "string"], "default": None} for field in fields]
    return Content(text=json.dumps({"type": "record", "name": name, "fields": listed}))


def refused(reason: Reason, act: Callable[[], object]) -> PoolError:
    with pytest.raises(PoolError) as caught:
        act()
    assert caught.value.reason is reason
    return caught.value


# --- ids -------------------------------------------------------------------------------------------------------
