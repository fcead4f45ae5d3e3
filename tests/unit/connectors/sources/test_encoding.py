"""The ladder: byte order mark, strict UTF-8, strict GB18030, or a misfit with offset and line."""

import hashlib
import itertools
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.sources import encoding
from connectors.sources.encoding import detect_encoding

TEXTS = {
    "header only": "身份证号,姓名\n",
    "one name": "id,name\n1,王小明\n",
    "500 ASCII rows and one name": "id,name\n" + "".join(f"{n},row {n}\n" for n in range(500)) + "501,李雷\n",
    "many names": "姓名,地址\n" + "张三,浙江省杭州市拱墅区\n" * 30,
    "rare characters": "姓名\n㐂\n䶮\n𠮷野\n",
    "ASCII": "id,name\n1,Li Lei\n",
}
ENCODINGS = ("utf-8", "utf-8-sig", "gbk", "gb18030", "utf-16")


def samples() -> list[tuple[str, str]]:
    pairs = []
    for name, encoding_ in itertools.product(TEXTS, ENCODINGS):
        try:
            TEXTS[name].encode(encoding_)
        except UnicodeEncodeError:
            continue  # GBK has no 䶮
        pairs.append((name, encoding_))
    return pairs


@pytest.mark.parametrize(("name", "written"), samples())
def test_text_is_read_as_it_was_written(tmp_path: Path, name: str, written: str) -> None:
    path = tmp_path / "f.csv"
    path.write_bytes(TEXTS[name].encode(written))
    found = detect_encoding(path)
    assert found.failure is None
    assert path.read_bytes().decode(found.encoding).removeprefix("\ufeff") == TEXTS[name]
    assert found.sha256 == hashlib.sha256(path.read_bytes()).digest()


def test_utf_8_is_tried_before_gb18030(tmp_path: Path) -> None:
    """Most UTF-8 is also GB18030, and means something else there."""
    path = tmp_path / "f.csv"
    path.write_bytes("姓名,王小明一\n".encode())
    path.read_bytes().decode("gb18030", errors="strict")
    assert detect_encoding(path).encoding == "utf-8"


@pytest.mark.parametrize("tail", [b"\x81", b"\x81\x30", b"\x81\x30\x81", b"\xff"])
def test_a_file_cut_in_a_character_is_no_text(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "f.csv"
    path.write_bytes("a,王\n".encode("gb18030") + tail)
    found = detect_encoding(path)
    assert found.encoding == ""
    assert found.failure is not None
    assert (found.failure.offset, found.failure.line) == (5, 2)
    assert found.failure.tried == ("utf-8", "gb18030")


def test_a_mark_binds(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_bytes(b"\xef\xbb\xbfa\n" + "王".encode("gbk"))
    found = detect_encoding(path)
    assert found.encoding == ""
    assert found.failure is not None
    assert (found.failure.offset, found.failure.line) == (5, 2)


def test_a_pinned_encoding_is_the_only_one_tried(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_bytes("a\n王\n".encode())
    assert detect_encoding(path, "gb18030").failure is not None
    path.write_bytes("a\n王\n".encode("gb18030"))
    assert detect_encoding(path, "gb18030").encoding == "gb18030"


def test_an_empty_file_is_text(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.touch()
    assert detect_encoding(path).encoding == "utf-8"


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.binary(max_size=60), block=st.integers(1, 7))
def test_blocks_change_nothing(tmp_path: Path, data: bytes, block: int) -> None:
    """The place of the misfit, too, is what decoding the whole at once says."""
    path = tmp_path / "f.csv"
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "_BLOCK", max(block, 3))
        found = detect_encoding(path)
    expected, broken = "", []
    candidates = encoding._candidates(data[:3])
    for rung in candidates:
        try:
            data.decode(rung.removesuffix("-sig"))
        except UnicodeDecodeError as error:
            broken.append(error.start)
        else:
            expected = expected or rung
    assert found.encoding == expected
    if not expected:
        assert found.failure is not None
        assert found.failure.offset == max(broken)
        assert found.failure.line == data[: max(broken)].count(b"\n") + 1
