"""Enrolling never overwrites another connector's keys: they are refused before the one-time token is used."""

import json
from pathlib import Path

import pytest

from exchange.client import enrol
from schemas.errors import ConflictError, PoolError, Reason
from schemas.invitation import Invitation

TOKEN = Invitation(address="127.0.0.1:1", authority="another pool", secret="s").encode()
FILES = ("identity.json", "tls.key", "signing.key", "authority.crt")


def folder_of(folder: Path, connector: str, authority: str = "another pool") -> dict[str, bytes]:
    facts = json.dumps({"connector": connector})
    for name, content in zip(FILES, (facts, "key", "key", authority), strict=True):
        (folder / name).write_text(content)
    return contents(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir()}


@pytest.mark.parametrize(("connector", "authority"), [("cards", "another pool"), ("drop", "this pool")])
def test_another_connector_s_keys_are_not_overwritten(tmp_path: Path, connector: str, authority: str) -> None:
    before = folder_of(tmp_path, connector, authority)
    with pytest.raises(ConflictError, match="The token was not used") as error:
        enrol(TOKEN, "drop", tmp_path)
    assert error.value.reason is Reason.ALREADY_EXISTS
    assert f"the connector {connector}" in error.value.message
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["signing.key", "tls.key", "identity.json"])
def test_keys_of_which_nothing_is_known_are_not_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("not JSON")
    with pytest.raises(ConflictError, match="the connector unknown"):
        enrol(TOKEN, "drop", tmp_path)


def test_the_same_connector_enrols_again_and_others_on_demand(tmp_path: Path) -> None:
    """The pool is asked then: here nobody answers, or the authority is no certificate."""
    folder_of(tmp_path, "drop")
    for replace, connector in ((False, "drop"), (True, "cards")):
        with pytest.raises((PoolError, ValueError, RuntimeError)) as error:
            enrol(TOKEN, connector, tmp_path, replace=replace)
        assert getattr(error.value, "reason", None) is not Reason.ALREADY_EXISTS
