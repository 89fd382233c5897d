"""How does the time of an epoch grow with the edges? A table and a plot per benchmark of several sizes."""

from __future__ import annotations

from collections.abc import Sequence

from macrorec.report.cells import Row, picture, short, table

COLUMNS = {
    "edges": "edges",
    "users": "users",
    "items": "items",
    "seconds": "s per epoch",
    "edges_per_second": "edges/s",
    "measured": "steps measured",
    "steps": "of",
    "graph_seconds": "graph s",
    "base_mib": "process MiB",
    "tables_mib": "tables MiB",
    "edges_mib": "edges MiB",
    "peak_mib": "peak MiB",
}


def of_sizes(lines: Sequence[Row]) -> list[Row]:
    """The benchmarks that measured several sizes, by name."""
    return sorted((line for line in lines if line.get("points")), key=lambda line: str(line["name"]))


def section(lines: Sequence[Row]) -> str:
    """A table and a plot for each of ``of_sizes``."""
    texts = []
    for line in lines:
        shown = [key for key in COLUMNS if any(key in point for point in line["points"])]
        body = [[short(point.get(key, "")) for key in shown] for point in line["points"]]
        texts.append(
            f"### {line['name']}\n\n"
            + table([COLUMNS[key] for key in shown], body)
            + "\n"
            + picture(f"scale-{line['name']}", f"seconds per epoch over edges, {line['name']}")
        )
    return "\n".join(texts)
