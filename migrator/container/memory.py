"""The memory of a container's processes: what of it is sent, and what it comes to when nothing of it is shared.

The lazy rung fills the pages of every process by themselves, also those that a fork shares until somebody writes
(copy-on-write); a whole checkpoint is restored with what was shared, or not at all, and that before the commit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from migrator.container.processes import PROC
from migrator.runtime.cgroup import CGROUP_ROOT

SIZE = re.compile(r"^(VmRSS|RssAnon|VmSwap):\s+(\d+) kB$", re.MULTILINE)
"""Of /proc/PID/status, in KiB: proc_pid_status(5). VmSwap is anonymous memory only."""

ALONE_SHARE = 0.9
ALONE_LIMIT_SHARE, LIMIT_SHARE = 1.02, 0.95
"""One process that holds nearly all does not grow by leaving: what it holds in memory is in its cgroup already, and
only inexact counters say otherwise. Of several, a twentieth is kept for page tables and what they write."""


@dataclass(frozen=True)
class Memory:
    """What processes hold, in bytes. Pages that forked processes share are counted for each of them."""

    resident: int = 0
    swapped: int = 0
    private: tuple[int, ...] = ()  # of each process: anonymous, resident or swapped

    @property
    def sent(self) -> int:
        """Return what a target needs: what is swapped here is memory there."""
        return self.resident + self.swapped


def memory_of(pids: Iterable[int], proc: Path = PROC) -> Memory:
    """Return what processes hold; one that ended meanwhile holds nothing. No controller is needed."""
    resident = swapped = 0
    private = []
    for pid in pids:
        try:
            status = (proc / str(pid) / "status").read_text(errors="replace")
        except OSError:
            continue
        sizes = {name: int(size) << 10 for name, size in SIZE.findall(status)}
        resident += sizes.get("VmRSS", 0)
        swapped += sizes.get("VmSwap", 0)
        private.append(sizes.get("RssAnon", 0) + sizes.get("VmSwap", 0))
    return Memory(resident, swapped, tuple(private))


def limit_of(inspected: Mapping[str, Any], cgroup: str, root: Path = CGROUP_ROOT) -> int:
    """Return the memory limit of a container in bytes, 0 for none: podman's word, else that of its cgroup.

    One with its cgroup in that of a systemd unit is limited by that, too (MemoryMax=, which moves along).
    """
    own = int(inspected.get("HostConfig", {}).get("Memory") or 0) or _memory_max(cgroup, root)
    unit = _memory_max(str(Path(cgroup).parent), root) if "/libpod-payload-" in cgroup else 0
    return min((limit for limit in (own, unit) if limit), default=0)


def outgrown(memory: Memory, limit: int) -> str:
    """Say why processes that share no page would be killed below this limit, empty when they would not. Pure."""
    apart = sum(memory.private)
    if not limit or not apart:
        return ""
    alone = max(memory.private) >= ALONE_SHARE * apart
    if apart <= limit * (ALONE_LIMIT_SHARE if alone else LIMIT_SHARE):
        return ""
    count = sum(size > 0 for size in memory.private)
    whose = f"its {count} processes would hold" if count > 1 else "its process would hold"
    swapped = f" ({memory.swapped >> 20} MiB of it swapped out)" if memory.swapped else ""
    return (
        f"{whose} {apart >> 20} MiB{swapped} with memory on demand, too much for the memory limit of "
        f"{limit >> 20} MiB"
    )


def _memory_max(cgroup: str, root: Path) -> int:
    """Return memory.max of a cgroup v2 (cgroup-v2.rst), 0 without a limit; the path may begin with the root."""
    try:
        said = (root / cgroup.removeprefix(str(root)).lstrip("/") / "memory.max").read_text().strip()
    except OSError:
        return 0
    return int(said) if said.isdecimal() else 0
