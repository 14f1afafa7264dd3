"""What a sink's children have in common: a name of their own, and a place in the order of the OOM killer."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

ARGUMENTS = slice(45, 47)  # arg_start and arg_end in /proc/PID/stat behind the name (proc_pid_stat(5), 48 and 49)


def settle_in(name: bytes, oom_score_adj: int) -> None:
    """Be called `name`, so that whoever ends the sink by its name spares this, and be killed in this order.

    `oom_score_adj` is from -1000 (never) to 1000 (first); proc_pid_oom_score_adj(5). What the kernel refuses stays.
    """
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
