"""What a container needs of memory at a target: what is swapped, too, and below its limit what a fork shares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from migrator.container import describe as describe_module
from migrator.container.describe import Others, describe
from migrator.container.memory import Memory, limit_of, memory_of, outgrown
from migrator.model import Method
from migrator.planning.plan import ladder
from migrator.settings import MigratorSettings

MIB = 1 << 20
ID = "0123456789abcdef" * 4
SCOPE = f"/sys/fs/cgroup/machine.slice/libpod-{ID}.scope"
SPLIT = f"/sys/fs/cgroup/system.slice/web.service/libpod-payload-{ID}"


class Proc:
    """A /proc of processes whose sizes the test says, in MiB."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def add(self, pid: int, anonymous: int, swapped: int = 0, files: int = 0) -> None:
        """Add a process; `files` is what it has mapped of files."""
        (self.place / str(pid)).mkdir(parents=True)
        (self.place / str(pid) / "status").write_text(
            f"Name:\tworker\nVmPeak:\t 9999999 kB\nVmRSS:\t {(anonymous + files) << 10} kB\n"
            f"RssAnon:\t {anonymous << 10} kB\nRssFile:\t {files << 10} kB\nVmSwap:\t {swapped << 10} kB\n"
        )

    def memory(self) -> Memory:
        """Return what all of them hold, and one that is gone, and a zombie."""
        (self.place / "998").mkdir()
        (self.place / "998/status").write_text("Name:\tdefunct\nState:\tZ (zombie)\n")
        return memory_of([*(int(item.name) for item in sorted(self.place.iterdir())), 999], self.place)


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    """Return a /proc without processes."""
    return Proc(tmp_path / "proc")


def test_what_is_swapped_is_needed_there_too(proc: Proc) -> None:
    proc.add(1, 1000, swapped=3072, files=24)
    assert proc.memory().sent == 4096 * MIB


@pytest.mark.parametrize(
    ("processes", "limit", "fits"),
    [
        ([(300, 0)] * 5, 512, False),  # a parent of 300 MiB and four workers that share it
        ([(300, 0)] * 5, 0, True),  # no limit
        ([(300, 0)] * 5, 2048, True),
        ([(300, 0)] * 5, 1550, False),  # nothing would be left for page tables
        ([(510, 0)], 512, True),  # one process nearly fills its limit as it is
        ([(515, 0)], 512, True),  # the kernel's counters are not exact
        ([(1, 0), (509, 0)], 512, True),  # as above, below an init
        ([(400, 300)], 512, False),  # what is swapped here needs the limit's memory there
        ([(100, 300)], 512, True),
        ([], 512, True),
    ],
)
def test_what_outgrows_its_limit(proc: Proc, processes: list[tuple[int, int]], limit: int, *, fits: bool) -> None:
    proc.place.mkdir()
    for pid, (anonymous, swapped) in enumerate(processes, 1):
        proc.add(pid, anonymous, swapped, files=50)
    assert (outgrown(proc.memory(), limit * MIB) == "") is fits


def test_files_that_are_mapped_are_no_reason() -> None:
    assert outgrown(Memory(resident=900 * MIB, private=(100 * MIB, 100 * MIB)), 512 * MIB) == ""


def test_the_limit_is_podmans_or_the_cgroups_or_the_units(tmp_path: Path) -> None:
    for cgroup, said in ((SCOPE, "536870912"), (SPLIT, "max"), (str(Path(SPLIT).parent), "268435456")):
        place = tmp_path / cgroup.removeprefix("/sys/fs/cgroup/")
        place.mkdir(parents=True, exist_ok=True)
        (place / "memory.max").write_text(f"{said}\n")
    none: dict[str, Any] = {"HostConfig": {"Memory": 0}}

    def limit(inspected: dict[str, Any], cgroup: str) -> int:
        return limit_of(inspected, str(tmp_path / cgroup.removeprefix("/sys/fs/cgroup/")), tmp_path) >> 20

    assert limit({"HostConfig": {"Memory": 64 * MIB}}, SCOPE) == 64
    assert limit(none, SCOPE) == 512
    assert limit({}, SCOPE) == 512
    assert limit(none, SPLIT) == 256
    assert limit({"HostConfig": {"Memory": 999 * MIB}}, SPLIT) == 256
    assert limit(none, "/absent") == 0
    assert limit(none, "") == 0


def test_such_a_container_takes_the_full_rung_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    held = Memory(resident=1500 * MIB, swapped=100 * MIB, private=(400 * MIB,) * 4)
    doors: dict[str, object] = {
        "memory_of": lambda _: held,
        "_pids": lambda _: (),
        "_cgroup": lambda _: SCOPE,
        "_image_bytes": lambda _: 0,
        "neighbours": lambda *_, **__: (),
        "connections_out": lambda _: (),
    }
    for name, door in doors.items():
        monkeypatch.setattr(describe_module, name, door)
    inspected: dict[str, Any] = {
        "State": {"Pid": 0, "Running": True},
        "Config": {},
        "HostConfig": {"Memory": 512 * MIB},
        "NetworkSettings": {},
        "Id": ID,
        "Name": "web",
        "ImageName": "i",
        "Image": ID,
        "OCIRuntime": "/usr/bin/runc",
        "Mounts": [],
    }
    facts = describe(inspected, MigratorSettings(), Others({}, {}, {}))
    assert facts.memory_bytes == 1600 * MIB
    assert [(item.code, item.methods) for item in facts.obstacles] == [("memory-limit", (Method.LAZY,))]
    assert facts.unsupported[Method.LAZY] == (
        "its 4 processes would hold 1600 MiB (100 MiB of it swapped out) with memory on demand, "
        "too much for the memory limit of 512 MiB"
    )
    assert ladder(facts, Method.LAZY) == (Method.FULL,)
