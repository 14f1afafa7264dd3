"""What processes share in an IPC namespace that belongs to none of them, and so to no dump of one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from migrator.command import run
from migrator.errors import PrerequisiteError

TIMEOUT_S = 10.0
KINDS = {"shm": "System V shared memory", "sem": "System V semaphores", "msg": "a System V message queue"}
LIST = "for kind in shm sem msg; do [ $(wc -l </proc/sysvipc/$kind) -le 1 ] || echo $kind; done"
"""The kernel shows the objects of whoever reads, below a line of headings (ipc/util.c)."""


def check_shared_objects(pid: int, pod: str) -> None:
    """Raise `PrerequisiteError` when members of a pod share what no dump of one holds; `pid` is any of them."""
    if found := list(shared_objects(pid)):
        raise PrerequisiteError(
            f"the members of the pod {pod} share {' and '.join(found)}, which no dump of one of them holds",
            code="pod-ipc",
        )


def shared_objects(pid: int) -> Iterator[str]:
    """Yield what is in the IPC namespace of a process, in words."""
    listed = run(["nsenter", f"--ipc=/proc/{pid}/ns/ipc", "sh", "-c", LIST], timeout_s=TIMEOUT_S)
    yield from (KINDS[kind] for kind in listed.output.split())
    queues = Path(f"/proc/{pid}/root/dev/mqueue")
    if queues.is_dir() and any(queues.iterdir()):
        yield "a POSIX message queue"
