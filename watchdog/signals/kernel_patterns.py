"""What lines of the kernel log mean: patterns out of a data file, and their use. Pure but for the loading."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from migrator.model import Value
from watchdog.signals.catalog import CATALOG
from watchdog.signals.model import SignalKind
from watchdog.toml_files import FileError, Problem, load, nearest

SHIPPED = Path(__file__).with_name("kernel_patterns.toml")
LOCAL = Path("/etc/lifeboat/kernel-patterns")
LONGEST_LINE = 1000  # what a regular expression is let loose on; the kernel's own limit is 1024
OF_DEVICES = ("disk", "disk_", "port", "file_system", "processor")
NOT_OURS = ("smart", "disks", "arrays", "mounts")


class Pattern(Value):
    """One kind of line."""

    id: str = Field(pattern=r"^[a-z0-9-]+$", description="unique name")
    signal: str = Field(description="the counter that such a line adds to; empty: the line means nothing")
    contains: tuple[str, ...] = Field(min_length=1, description="the line contains one of these texts")
    matches: str = Field(default="", description="and this regular expression is found in it")
    once_by: tuple[str, ...] = Field(default=(), description="groups; the same values are counted once a day")
    source: str = Field(default="", description="where in the kernel the line comes from")
    examples: tuple[str, ...] = Field(min_length=1, description="lines that must match")

    @cached_property
    def expression(self) -> re.Pattern[str]:
        """Return the regular expression, compiled."""
        return re.compile(self.matches)

    @model_validator(mode="after")
    def _check(self) -> Self:
        try:
            known = self.expression.groupindex
        except re.error as error:
            raise ValueError(f"matches is no regular expression: {error}") from error
        if unknown := set(self.once_by) - set(known):
            raise ValueError(f"once_by names groups that matches does not have: {', '.join(sorted(unknown))}")
        if self.signal:
            _check_signal(self.signal)
        if missed := [line for line in self.examples if self.match(line) is None]:
            raise ValueError(f"does not match its example {missed[0]!r}")
        return self

    def match(self, line: str) -> re.Match[str] | None:
        """Return the match of a line, or None."""
        if not any(text in line for text in self.contains):
            return None
        return self.expression.search(line, 0, LONGEST_LINE)


def _check_signal(name: str) -> None:
    signal = CATALOG.get(name)
    if signal is None or signal.kind is not SignalKind.COUNTER or signal.source in NOT_OURS:
        counters = [
            item.name for item in CATALOG.values() if item.name.startswith(("kernel.", "mce.", "firmware."))
        ]
        raise ValueError(f"{name!r} is no counter of the kernel log{nearest(name, counters)}")


class PatternFile(Value):
    """One file."""

    pattern: tuple[Pattern, ...] = Field(default=(), description="the patterns")


@dataclass(frozen=True)
class Found:
    """What a line means: `groups` as the pattern names them, `total` when the kernel itself has counted."""

    pattern: Pattern
    groups: Mapping[str, str]

    @property
    def total(self) -> float | None:
        """Return the kernel's own count, if the line has one."""
        return float(self.groups["total"]) if "total" in self.groups else None

    @property
    def once_key(self) -> tuple[str, ...]:
        """Return what makes this line the same as another; empty when each line counts."""
        if not self.pattern.once_by:
            return ()
        about = (self.groups.get(name, "") for name in (*OF_DEVICES, *self.pattern.once_by))
        return (self.pattern.signal, *about)


class Patterns:
    """All patterns in force."""

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        self._patterns = tuple(patterns)
        self._texts = tuple(dict.fromkeys(text for pattern in patterns for text in pattern.contains))

    def find(self, line: str) -> Found | None:
        """Return what a line means; None for nothing. A line of no interest costs some microseconds."""
        for text in self._texts:
            if text in line:
                break
        else:
            return None
        for pattern in self._patterns:
            match = pattern.match(line)
            if match is not None:
                groups = {name: value for name, value in match.groupdict().items() if value is not None}
                return Found(pattern, groups) if pattern.signal else None
        return None


def load_patterns(shipped: Path = SHIPPED, local: Path = LOCAL) -> Patterns:
    """Load the admin's patterns and the shipped ones; raise `FileError` with everything that is wrong."""
    files = sorted(local.glob("*.toml"))
    if shipped.name not in {path.name for path in files}:
        files.append(shipped)
    problems: list[Problem] = []
    found: list[Pattern] = []
    for path in files:
        if path.resolve() == Path("/dev/null"):
            continue
        try:
            found += load(path, PatternFile).pattern
        except FileError as error:
            problems += error.problems
    problems += [
        Problem(files[0].parent, 0, f"pattern {name}", "stands there twice; ids must be unique")
        for name in _repeated(pattern.id for pattern in found)
    ]
    if problems:
        raise FileError(problems)
    return Patterns(found)


def _repeated(names: Iterable[str]) -> list[str]:
    return sorted(name for name, times in Counter(names).items() if times > 1)
