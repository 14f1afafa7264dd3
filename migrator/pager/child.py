"""What a sink's children have in common: a name of their own, so that who ends the sink by its name spares them."""

from __future__ import annotations

from pathlib import Path

ARGUMENTS = slice(45, 47)  # arg_start and arg_end in /proc/PID/stat behind the name (proc_pid_stat(5), 48 and 49)


def call_itself(name: bytes) -> None:
    """Be known by another name and command line; a longer command line than it had has no room.

    Raises `OSError` where the kernel does not let a process do so.
    """
    Path("/proc/self/comm").write_bytes(name)
    start, end = map(int, Path("/proc/self/stat").read_text().rpartition(")")[2].split()[ARGUMENTS])
    with open("/proc/self/mem", "r+b", buffering=0) as memory:
        memory.seek(start)
        memory.write(name[: end - start - 1].ljust(end - start, b"\0"))
