"""What /proc tells of a container's processes that a checkpoint would stumble over, or leave behind."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from migrator.runtime.cgroup import container_part, path_of

PROC = Path("/proc")

NOT_DUMPED = {
    "anon_inode:[io_uring]": "an io_uring",
    "anon_inode:[perf_event]": "a performance counter",
    "anon_inode:[userfaultfd]": "a userfaultfd",
    "anon_inode:bpf-prog": "a BPF program",
    "anon_inode:bpf_link": "a BPF link",
    "anon_inode:kvm-vm": "a virtual machine",
    "anon_inode:seccomp notify": "a seccomp listener",
    "anon_inode:[landlock-ruleset]": "a Landlock rule set",
    "anon_inode:[vfio-device]": "a device given by VFIO",
}
"""Descriptors of which CRIU 4.2 says "Can't dump file of that type" (criu/files.c, dump_one_file), by what
/proc/PID/fd shows; tried by tests/real/test_containers.py where the kernel lets us."""

DUMPED_DEVICES = frozenset(
    f"/dev/{name}"
    for name in ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts/ptmx", "net/tun", "console")
)
"""Character devices CRIU knows how to open again (criu/files.c; memory devices, terminals, tun)."""

TERMINAL = re.compile(r"/dev/(pts/\d+|tty\d*|console)$")
GHOST_LIMIT_BYTES = 64 << 20
"""How much of a file that is open and has no name any more goes into the images, which are sent in the freeze."""

DELETED = re.compile(r"^/(?!memfd:|dev/zero|SYSV).* \(deleted\)$")
NAMESPACES = ("net", "ipc", "pid", "uts")


@dataclass(frozen=True)
class Held:
    """Something a process holds that cannot be moved."""

    pid: int
    program: str
    what: str


@dataclass(frozen=True)
class Neighbour:
    """A process that is not of the container but lives in a namespace of it."""

    pid: int
    program: str
    namespace: str


def held_descriptors(pids: Iterable[int], proc: Path = PROC) -> tuple[Held, ...]:
    """Return what these processes hold that CRIU is known to refuse, one of each kind and program."""
    found: dict[tuple[str, str], Held] = {}
    for pid in pids:
        for what in _held(pid, proc):
            program = program_name(pid, proc)
            found.setdefault((program, what), Held(pid, program, what))
    return tuple(found.values())


def neighbours(first: int, proc: Path = PROC, *, fellows: Collection[str] = ()) -> tuple[Neighbour, ...]:
    """Return processes of others in a container's own namespaces, one for each namespace; `first` is its first.

    Those of the containers `fellows` (ids) are no others, as they go where it goes.

    Whose a process is, its cgroup tells, read after its namespace: a list of the container's processes would be
    too old for one that it forked since. Ours are no neighbours, as they only look (`nsenter`).
    """
    links = {name: link for name in NAMESPACES if (link := link_of(proc / str(first) / "ns" / name))}
    foreign = {name: link for name, link in links.items() if link != link_of(proc / "1/ns" / name)}
    container, ours = container_part(_cgroup(proc / str(first))), _cgroup(proc / "self")
    found: dict[str, Neighbour] = {}
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        for name, link in foreign.items():
            if name not in found and link_of(entry / "ns" / name) == link:
                cgroup = _cgroup(entry)
                if cgroup in ("", ours) or f"{cgroup}/".startswith(f"{container.rstrip('/')}/"):
                    continue
                if any(fellow in container_part(cgroup) for fellow in fellows):
                    continue
                found[name] = Neighbour(int(entry.name), program_name(int(entry.name), proc), name)
    return tuple(found.values())


def _cgroup(process: Path) -> str:
    """Return the path of a process's cgroup, empty when the process is gone."""
    try:
        return path_of(process)
    except OSError:
        return ""


def program_name(pid: int, proc: Path = PROC) -> str:
    """Return the short name of a process."""
    try:
        return (proc / str(pid) / "comm").read_text().strip()
    except OSError:
        return "?"


def _held(pid: int, proc: Path) -> Iterator[str]:
    try:
        descriptors = list((proc / str(pid) / "fd").iterdir())
        maps = (proc / str(pid) / "maps").read_text(errors="replace")
        status = (proc / str(pid) / "status").read_text(errors="replace")
    except OSError:
        return  # it ended meanwhile
    for descriptor in descriptors:
        target = link_of(descriptor)
        if what := NOT_DUMPED.get(target):
            yield f"holds {what}"
        elif target.startswith("/dev/") and not _dumped(target) and _is_device(descriptor):
            yield f"holds {target} open"
        elif DELETED.match(target) and (size := _allocated_bytes(descriptor)) > GHOST_LIMIT_BYTES:
            yield f"holds a deleted file of {size >> 20} MiB open ({target.removesuffix(' (deleted)')})"
    if "/secretmem" in maps:
        yield "uses secret memory (memfd_secret)"
    tracer = re.search(r"^TracerPid:\s+(\d+)", status, re.MULTILINE)
    if tracer and tracer[1] != "0":
        yield f"is traced by process {tracer[1]}"


def _allocated_bytes(descriptor: Path) -> int:
    try:
        return descriptor.stat().st_blocks * 512
    except OSError:
        return 0


def _dumped(device: str) -> bool:
    return device in DUMPED_DEVICES or TERMINAL.match(device) is not None


def _is_device(descriptor: Path) -> bool:
    try:
        mode = descriptor.stat().st_mode
    except OSError:
        return False
    return mode & 0o170000 in (0o020000, 0o060000)


def link_of(path: Path) -> str:
    """Return where a symbolic link points to, empty when it is gone."""
    try:
        return os.readlink(path)
    except OSError:
        return ""
