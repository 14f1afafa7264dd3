"""Terms that people say on the command line, too: kept apart from what they are about, for the command starts each
time with what it imports.
"""

from __future__ import annotations

from enum import StrEnum


class Method(StrEnum):
    """The rungs of the ladder, fastest switchover first."""

    LAZY = "lazy"  # processes first, memory on demand after the commit
    FULL = "full"  # checkpoint with all memory, copy, restore
    COLD = "cold"  # stop, copy the files, start anew: what was in memory is gone, as after any stop


class Side(StrEnum):
    """Which end of a migration this host is."""

    SOURCE = "source"
    TARGET = "target"


class Wish(StrEnum):
    """What a human may want of a migration that did not end by itself."""

    RESUME = "resume-here"
    FORGET = "forget"
