"""Figures → docs/benchmarks.md (between its markers) and build/bench.json, where a row's key is its name before ":"."""

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


@dataclass(frozen=True)
class Row:
    """One measurement: medians of ours and of the baseline, and the median ratio with its spread."""

    name: str
    ours: float
    baseline: float
    ratio: float
    unit: str
    spread: str
    notes: str

    @classmethod
    def paired(cls, name: str, pairs: Sequence[tuple[float, float]], *, unit: str, notes: str) -> "Row":
        """Make a row of paired runs: (ours, baseline) each."""
        ratios = [ours / base for ours, base in pairs]
        return cls(
            name=name,
            ours=statistics.median(ours for ours, _ in pairs),
            baseline=statistics.median(base for _, base in pairs),
            ratio=statistics.median(ratios),
            unit=unit,
            spread=f"{min(ratios):.2f} to {max(ratios):.2f} in {len(pairs)} pairs",
            notes=notes,
        )


def _told(page: str) -> Iterator[dict[str, str | float]]:
    """Read the rows of the page's table."""
    for line in page.partition(BEGIN)[2].partition(END)[0].splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split(" | ")]
        if len(cells) != 6 or cells[0] == "what":
            continue
        name, ours, baseline, ratio, spread, notes = cells
        number, _, unit = ours.replace(",", "").partition(" ")
        yield {
            "name": name,
            "ours": float(number),
            "baseline": float(baseline.replace(",", "").partition(" ")[0]),
            "ratio": float(ratio),
            "unit": unit,
            "spread": spread,
            "notes": notes,
        }


def write(rows: Sequence[Row], machine: str, arguments: Sequence[str]) -> None:
    """Write both files; a part run replaces its own rows alone, the others stay as the page has them."""
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    file = build / "bench.json"
    part = {row.name.partition(":")[0] for row in rows}
    told = _told(PAGE.read_text())
    kept = {str(one["name"]): one for one in told if str(one["name"]).partition(":")[0] not in part}
    for row in rows:
        kept[row.name] = {
            "name": row.name,
            "ours": row.ours,
            "baseline": row.baseline,
            "ratio": row.ratio,
            "unit": row.unit,
            "spread": row.spread,
            "notes": row.notes,
        }
    keyed = [{"key": str(one["name"]).partition(":")[0], **one} for one in kept.values()]
    file.write_text(json.dumps(keyed, indent=2) + "\n")
    command = " ".join(["python -m tests.bench", *arguments])
    lines = [
        f"Last run of `{command}` on {machine}:",
        "",
        "| what | ours | baseline | ratio | spread of the ratio | notes |",
        "|---|---|---|---|---|---|",
        *(
            f"| {one['name']} | {one['ours']:,.0f} {one['unit']} | {one['baseline']:,.0f} {one['unit']} "
            f"| {one['ratio']:.2f} | {one['spread']} | {one['notes']} |"
            for one in kept.values()
        ),
    ]
    text = PAGE.read_text()
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    PAGE.write_text(f"{head}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{tail}")
    print("\n".join(lines))
