"""How answers look on a terminal."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from migrator.later import Later

if TYPE_CHECKING:
    from rich import console
    from rich import table as tables
    from rich import text as texts
else:
    console, tables, texts = Later("rich.console"), Later("rich.table"), Later("rich.text")

COLOURS = {"healthy": "green", "suspect": "yellow", "failing": "red"}


def as_json(value: object) -> None:
    """Print an answer for programs."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def line(text: str) -> None:
    """Print one line for people."""
    console.Console(highlight=False, soft_wrap=True).print(texts.Text(text))


def verdict(word: str) -> texts.Text:
    """Return a verdict in its colour."""
    return texts.Text(word, style=COLOURS.get(word, ""))


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table; nothing is cut off when the output is no terminal."""
    terminal = console.Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    shown = tables.Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        shown.add_column(column, overflow="fold")
    for row in rows:
        shown.add_row(
            *(
                cell if isinstance(cell, texts.Text) else texts.Text("" if cell is None else str(cell))
                for cell in row
            )
        )
    terminal.print(shown)


def moment(at: float) -> str:
    """Return a time (Unix seconds) in local time."""
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M")


def duration(seconds: float) -> str:
    """Return a span of time for people, in the largest unit that fits."""
    for unit_s, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def silences(found: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the silences for people."""
    now = time.time()
    return [
        f"{item['what']} silenced for another {max(item['until'] - now, 0) / 60:.0f} min: {item['why']}"
        for item in found
    ]


def number(value: float | None) -> str:
    """Return a value for people."""
    return "unreadable" if value is None else f"{value:g}"
