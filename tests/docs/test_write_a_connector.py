"""The connector that the how-to shows: it passes the conformance suite, and a connector publishes with it."""

import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.config.config import ConnectorConfig
from connectors.config.lint import parse_config
from connectors.config.source_models import CustomSource
from connectors.port import SnapshotSource
from connectors.runtime import assembly
from connectors.state.ledger import Ledger
from tests.kit.world.department import now

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "write-a-connector.md").read_text(encoding="utf-8")
SOURCE, SUITE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
ENTRY_POINTS = re.search(r'\[project\.entry-points\."(.*?)"\]\n(.*?) = "(.*?)"', PAGE)
CONFIG = textwrap.dedent(PAGE[PAGE.index("    version: 1") : PAGE.index("and it is checked and run")])


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Install the page's package: its module, and the metadata that an installer would write."""
    assert ENTRY_POINTS is not None
    (tmp_path / "xml_export.py").write_text(SOURCE)
    metadata = tmp_path / "xml_export-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: xml-export\nVersion: 1.0\n")
    group, name, target = map(str.strip, ENTRY_POINTS.groups())
    (metadata / "entry_points.txt").write_text(f"[{group}]\n{name} = {target}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("xml_export", None)


def test_the_example_passes_the_conformance_suite(tmp_path: Path) -> None:
    (tmp_path / "xml_export.py").write_text(SOURCE)
    (tmp_path / "test_xml_export.py").write_text(SUITE)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_xml_export.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "10 passed" in done.stdout, done.stdout[-500:]


def test_the_example_has_the_promised_size() -> None:
    assert len(SOURCE.splitlines()) <= 80


def test_a_source_that_guesses_a_number_does_not_pass(tmp_path: Path) -> None:
    naive = SOURCE.replace('field.text or ""', '(field.text or "").lstrip("0")')
    assert naive != SOURCE
    (tmp_path / "xml_export.py").write_text(naive)
    (tmp_path / "test_xml_export.py").write_text(SUITE)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_xml_export.py"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1


def test_an_installed_source_is_found_by_its_name_and_reads_rows(installed: Path) -> None:
    file = installed / "register.xml"
    file.write_text("<register><row><id>0001</id><name>王小明</name><note/></row><row><id>0002</id></row></register>")
    config = parse_config(CONFIG.replace("/srv/export/register.xml", str(file)))
    assert isinstance(config, ConnectorConfig), config
    assert isinstance(config.source, CustomSource)
    ledger = Ledger(installed / "l.sqlite3", clock=now)
    source: SnapshotSource = assembly.source(config, config.publish[0], ledger, now)
    (portion,) = source.portions(bytes(8))
    (chunk,) = portion.chunks()
    ledger.close()
    assert {name: column.to_pylist() for name, column in chunk.columns.items()} == {
        "id": ["0001", "0002"], "name": ["王小明", None], "note": ["", None],
    }  # fmt: skip


def test_lint_names_a_source_that_is_not_installed() -> None:
    found = parse_config(CONFIG.replace("type: xml-export", "type: nowhere"))
    assert isinstance(found, list)
    assert "no source is installed under the name 'nowhere'" in found[0].message
