"""Less work for CRIU while a container stands still: the same results, sooner.

A small library (hasten.c) is preloaded into the CRIU of a dump or a restore. It answers for the connection
table of a network namespace that has none (14 ms, twice), packs and unpacks what is empty without tar (5 ms
each), gives CRIU what it wants to know of a process's mappings without the kernel's counting every page
(20 to 40 ms per GiB), and leaves untouched pages out of a long copy. Without the library CRIU does it all as ever.

The mappings are *foreseen*: their flags are read while the container runs and used in the freeze if every mapping
is still the same. That no flag of one changed in between, the kernel confirms before the commit, while the
target restores; if one did, the container is given back.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from migrator.errors import ExecutionError

SMALLEST_BYTES = 128 << 20
"""Resident memory from which a process is worth it: its pages take the kernel some three milliseconds to count."""

FLAGS = "VmFlags: "


def environment(*others: Mapping[str, str], mappings: Path | None = None) -> dict[str, str]:
    """Return what CRIU must find in its environment, together with `others` that preload something, too."""
    library = next(Path(__file__).parent.glob("_hasten*.so"), None)
    preloaded = [found for other in others if (found := other.get("LD_PRELOAD"))]
    joined = {name: value for other in others for name, value in other.items()}
    if library is not None:
        preloaded.append(str(library))
        if mappings is not None:
            joined["LIFEBOAT_MAPPINGS"] = str(mappings)
    return joined | ({"LD_PRELOAD": ":".join(preloaded)} if preloaded else {})


class Foreseen:
    """The flags of the mappings of large processes, before and in a freeze; formats as in proc_pid_smaps(5)."""

    def __init__(self, directory: Path) -> None:
        """`directory` takes one file for each process whose mappings were foreseen."""
        self.directory = directory
        self._flags: dict[int, dict[str, str]] = {}
        self._given: dict[int, list[str]] = {}

    def look(self, pids: Sequence[int]) -> None:
        """Read the flags while the processes run; those that end meanwhile are not missed."""
        for pid in pids:
            try:
                if resident_bytes(pid) >= SMALLEST_BYTES:
                    self._flags[pid] = dict(_read_flags(pid))
            except OSError:
                continue

    def give(self) -> None:
        """In the freeze, before CRIU looks: write down each process whose mappings are the same as before."""
        self.directory.mkdir(mode=0o700, exist_ok=True)
        for pid, flags in self._flags.items():
            try:
                mappings = Path(f"/proc/{pid}/maps").read_text().splitlines()
            except OSError:
                continue
            if all(mapping in flags for mapping in mappings):
                text = "".join(f"{mapping}\n{FLAGS}{flags[mapping]}\n" for mapping in mappings)
                (self.directory / str(pid)).write_text(text)
                self._given[pid] = mappings

    def confirm(self) -> None:
        """Ask the kernel whether all that was given is true; the processes still stand. Raises `ExecutionError`."""
        for pid, mappings in self._given.items():
            now = dict(_read_flags(pid))
            for mapping in mappings:
                if now.get(mapping) != self._flags[pid][mapping]:
                    raise ExecutionError(
                        f"process {pid} changed its memory mappings just before the freeze",
                        code="mappings-changed",
                        hint="try again",
                        temporary=True,
                    )


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _read_flags(pid: int) -> Iterator[tuple[str, str]]:
    """Yield each mapping, as its line in maps, and its flags."""
    mapping = ""
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if line.startswith(FLAGS):
            yield mapping, line.removeprefix(FLAGS)
        elif line[0] in "0123456789abcdef":  # the names of all other lines begin with a capital letter
            mapping = line
