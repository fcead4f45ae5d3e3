"""Import of a contract from elsewhere: what it costs is bounded, and what is wrong is said in a sentence."""

from pathlib import Path

import pytest
import typer

from registry.cli.contract import _document

BOMB = "x0: &x0 [a, a, a, a, a, a, a, a, a, a]\n" + "".join(
    f"x{at}: &x{at} [{', '.join([f'*x{at - 1}'] * 10)}]\n" for at in range(1, 9)
)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (BOMB, "more than 100,000 values"),
        ("a: &a [*a]\n", "or for themselves"),
        ("at: 2027-02-31\n", "a date that there is not"),
        ("a: " + "9" * 5_000, "thousands of digits"),
        ("a: " + "[" * 3_000, "hundreds of levels"),
        ("a: [", "expected the node content"),
        ("a: !!python/object/apply:os.system [x]\n", "could not determine a constructor"),
    ],
)
def test_a_hostile_file_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, expected: str
) -> None:
    file = tmp_path / "contract.yaml"
    file.write_text(content)
    with pytest.raises(typer.Exit):
        _document(file)
    told = capsys.readouterr().err
    assert expected in told
    assert str(file) in told


def test_aliases_may_stand_for_what_is_written_once(tmp_path: Path) -> None:
    file = tmp_path / "contract.yaml"
    file.write_text("one: &one {a: [1, 2]}\ntwo: *one\nat: 2027-02-28\n")
    document = _document(file)
    assert document["one"] == document["two"] == {"a": [1, 2]}
