"""Making a pool: all of it or nothing, and never over another one."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from exchange import migrations
from exchange.server.initialise import initialise
from exchange.server.supervision.startup_retry import retry_until_available
from schemas.errors import InvalidError, Reason, UnavailableError

pytestmark = pytest.mark.postgres


def test_a_database_that_is_away_or_not_named_leaves_no_half_made_pool(
    tmp_path: Path, database: sa.URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "pool"
    away = "postgresql+psycopg2://nobody@127.0.0.1:1/none?connect_timeout=1"
    for address, expected in ((None, InvalidError), (away, UnavailableError)):
        monkeypatch.delenv("POOL_DATABASE", raising=False)
        if address is not None:
            monkeypatch.setenv("POOL_DATABASE", address)
        with pytest.raises(expected):
            initialise(folder, pool_id="city", database="${env:POOL_DATABASE}")
        assert not folder.exists(), "else it would be taken for a pool, which has no account and can get none"
    monkeypatch.setenv("POOL_DATABASE", database.render_as_string(hide_password=False))
    initialise(folder, pool_id="city", database="${env:POOL_DATABASE}")
    assert (folder / "bootstrap-token").exists()


def test_a_pool_is_not_made_over_the_tables_of_another(
    tmp_path: Path, database: sa.URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POOL_DATABASE", database.render_as_string(hide_password=False))
    initialise(tmp_path / "one", pool_id="one", database="${env:POOL_DATABASE}")
    with pytest.raises(InvalidError, match="holds a pool already") as refused:
        initialise(tmp_path / "two", pool_id="two", database="${env:POOL_DATABASE}")
    assert refused.value.reason is Reason.ALREADY_EXISTS
    assert not (tmp_path / "two").exists()


def test_an_operator_is_told_what_the_server_said_to_a_connection_and_never_the_password(
    tmp_path: Path, database: sa.URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = database.set(database="nowhere", password="b4d-s3cret")
    monkeypatch.setenv("POOL_DATABASE", wrong.render_as_string(hide_password=False))
    with pytest.raises(UnavailableError) as refused:
        initialise(tmp_path / "pool", pool_id="city", database="${env:POOL_DATABASE}")
    assert "FATAL" in refused.value.message
    engine = sa.create_engine(wrong)
    with capture_logs() as lines, pytest.raises(UnavailableError) as gave_up:
        retry_until_available(lambda: migrations.check(engine), timeout=0.5)
    assert "FATAL" in lines[0]["said"]
    assert "FATAL" not in gave_up.value.message, "callers from outside get this one"
    assert "b4d-s3cret" not in f"{lines} {refused.value.message}"
