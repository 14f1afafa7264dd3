"""What a sink's children have in common: a name of their own, and a place in the order of the OOM killer."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

ARGUMENTS = slice(45, 47)  # arg_start and arg_end in /proc/PID/stat behind the name (proc_pid_stat(5), 48 and 49)


def settle_in(name: bytes, oom_score_adj: int, channel: int) -> None:
    """Be called `name`, so that whoever ends the sink by its name spares this, and be killed in this order.

    Of what the sink has open only `channel` stays: with the listening end of its control socket here, a sink that
    was killed would look like one that is slow, and its guard waits for the end of the sink's own.
    `oom_score_adj` is from -1000 (never) to 1000 (first); proc_pid_oom_score_adj(5). What the kernel refuses stays.
    """
    os.closerange(3, channel)
    os.closerange(channel + 1, os.sysconf("SC_OPEN_MAX"))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(oom_score_adj))
    with suppress(OSError):
        _call_itself(name)


def _call_itself(name: bytes) -> None:
    """Have another name and command line; a longer command line than it had has no room."""
    Path("/proc/self/comm").write_bytes(name)
    start, end = map(int, Path("/proc/self/stat").read_text().rpartition(")")[2].split()[ARGUMENTS])
    with open("/proc/self/mem", "r+b", buffering=0) as memory:
        memory.seek(start)
        memory.write(name[: end - start - 1].ljust(end - start, b"\0"))
