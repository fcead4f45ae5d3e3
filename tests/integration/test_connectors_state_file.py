"""The file of the current state: what a form cannot hold is counted, and a failure leaves neither file nor manifest."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from connectors.runtime.exports import state_file
from connectors.runtime.exports.state_file import StateManifest, TextStyle, export_state
from connectors.subscribing.subscriber import SubscriptionConfig
from schemas.errors import ConflictError, Reason, UnavailableError
from tests.kit.twins.pool_twin import CASE, PURPOSE
from tests.kit.world.other_pool import GRANT, OtherPool


def export(other: OtherPool, output: Path, **style: object) -> StateManifest:
    terms = SubscriptionConfig(grant=GRANT, purpose=PURPOSE, case=CASE, batch_rows=7)
    return export_state(
        other.client(),
        terms,
        output,
        style=TextStyle(**style),  # type: ignore[arg-type]
        clock=lambda: datetime(2026, 3, 1, tzinfo=UTC),
    )


@pytest.fixture
def other() -> OtherPool:
    made = OtherPool(("id", "name"))
    made.commit(*(("put", {"id": str(number), "name": "=1+1" if number else "𠮷"}) for number in range(20)))
    made.commit(("delete", {"id": "7"}), ("put", {"id": "8", "name": None}))
    return made


def test_csv_for_a_spreadsheet_has_one_mark_and_no_formula(other: OtherPool, tmp_path: Path) -> None:
    output = tmp_path / "state.csv"
    manifest = export(other, output, encoding="utf-8-sig", neutralise_formulas=True)
    content = output.read_bytes()
    assert content.count("\ufeff".encode()) == 1
    assert content.startswith("\ufeff_record_key,_recorded_at,id,name".encode())
    assert "𠮷".encode() in content
    assert b",=1" not in content
    assert manifest.records == len(content.splitlines()) - 1 == 19
    assert manifest.sha256 == hashlib.sha256(content).hexdigest()
    assert not other.twin.grants[GRANT].committed, "a subscription under the same grant goes on where it was"


def test_a_failure_in_the_middle_or_of_the_manifest_leaves_nothing(
    other: OtherPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> str:
        raise OSError(28, "No space left on device")

    for broken in ("json_lines", "asdict"):
        with monkeypatch.context() as disk:
            disk.setattr(state_file, broken, full)
            with pytest.raises(UnavailableError) as away:
                export(other, tmp_path / "state.jsonl")
        assert away.value.reason is Reason.TARGET_UNAVAILABLE
        assert list(tmp_path.iterdir()) == []
    assert export(other, tmp_path / "state.jsonl").records == 19


def test_what_lies_there_is_neither_followed_nor_overwritten(other: OtherPool, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("as it was")
    (tmp_path / ".state.jsonl.part").symlink_to(victim)
    export(other, tmp_path / "state.jsonl")
    assert victim.read_text() == "as it was"
    assert not (tmp_path / "state.jsonl").is_symlink()
    (tmp_path / "other.jsonl").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConflictError):
        export(other, tmp_path / "other.jsonl")
    assert not (tmp_path / "nowhere").exists()
    assert json.loads((tmp_path / "state.jsonl.manifest.json").read_text())["drawn_at"] == "2026-03-01T00:00:00+00:00"


def test_a_file_that_is_made_meanwhile_stays(other: OtherPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output, written = tmp_path / "state.jsonl", state_file.json_lines

    def meanwhile(*arguments: Any, **options: Any) -> Any:
        output.write_text("of somebody else")
        return written(*arguments, **options)

    monkeypatch.setattr(state_file, "json_lines", meanwhile)
    with pytest.raises(ConflictError) as refused:
        export(other, output)
    assert "made meanwhile" in refused.value.message
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("state.jsonl", "of somebody else")]
