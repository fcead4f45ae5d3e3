"""Files of the command line: what cannot be read is an error that names the file, and never the program's end."""

from pathlib import Path

import pytest

from exchange.cli.control import read_document, read_text
from schemas.errors import InvalidError, Reason


@pytest.mark.parametrize(
    "content",
    [
        b"at: 2027-02-31\n",
        b"a: " + b"[" * 3_000,
        b"a: " + b"9" * 5_000,
        "理由: 核验".encode("gb18030"),
        b"a: [",
        b"a: \0",
    ],
)
def test_a_document_that_cannot_be_read_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "request.yaml"
    file.write_bytes(content)
    with pytest.raises(InvalidError) as caught:
        read_document(file)
    assert caught.value.reason is Reason.CONFIG_INVALID
    assert str(file) in caught.value.message


def test_a_text_in_another_encoding_is_named(tmp_path: Path) -> None:
    """As a spreadsheet in Chinese saves CSV, where it is not told otherwise."""
    file = tmp_path / "calendar.csv"
    file.write_bytes("date,is_workday,notice\n2027-01-01,false,国办发明电\n".encode("gb18030"))
    with pytest.raises(InvalidError, match="no UTF-8"):
        read_text(file)
