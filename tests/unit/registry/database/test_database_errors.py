"""The error firewall of the adapters on PostgreSQL: no error of the driver leaves it, and a defect stays what it is."""

import psycopg2
import pytest
from sqlalchemy import exc as sa_exc

from registry.database.errors import DriverError, translated_errors
from schemas.errors import InvalidError, Reason, UnavailableError


@pytest.mark.parametrize(
    "error", [psycopg2.OperationalError("gone"), sa_exc.OperationalError("SELECT", None, Exception("gone"))]
)
def test_an_error_of_the_driver_is_translated(error: DriverError) -> None:
    with pytest.raises(UnavailableError) as raised, translated_errors():
        raise error
    assert raised.value.reason is Reason.DATABASE_UNAVAILABLE
    assert raised.value.__cause__ is error


def test_a_defect_is_raised_as_it_is() -> None:
    error = psycopg2.ProgrammingError("no such column")
    with pytest.raises(psycopg2.ProgrammingError) as raised, translated_errors():
        raise error
    assert raised.value is error
    assert raised.value.__cause__ is None


def test_an_adapter_may_translate_by_itself_and_errors_of_the_pool_pass() -> None:
    @translated_errors(lambda error: InvalidError(Reason.REQUEST_INVALID, type(error).__name__))
    def call(error: Exception) -> None:
        raise error

    with pytest.raises(InvalidError, match="DataError"):
        call(psycopg2.DataError("no number"))
    own = UnavailableError(Reason.DISK_FULL, "full")
    with pytest.raises(UnavailableError) as raised:
        call(own)
    assert raised.value is own
