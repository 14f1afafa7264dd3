"""How answers look on a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

COLOURS = {"healthy": "green", "suspect": "yellow", "failing": "red"}


def as_json(value: object) -> None:
    """Print an answer for programs."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def line(text: str) -> None:
    """Print one line for people."""
    Console(highlight=False, soft_wrap=True).print(Text(text))


def verdict(word: str) -> Text:
    """Return a verdict in its colour."""
    return Text(word, style=COLOURS.get(word, ""))


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table; nothing is cut off when the output is no terminal."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        shown.add_column(column, overflow="fold")
    for row in rows:
        shown.add_row(
            *(cell if isinstance(cell, Text) else Text("" if cell is None else str(cell)) for cell in row)
        )
    console.print(shown)


def moment(at: float) -> str:
    """Return a time (Unix seconds) in local time."""
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M")


def duration(seconds: float) -> str:
    """Return a span of time for people, in the largest unit that fits."""
    for unit_s, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def number(value: float | None) -> str:
    """Return a value for people."""
    return "unreadable" if value is None else f"{value:g}"
