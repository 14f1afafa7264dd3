"""A process that does everything with its memory that a kernel allows is moved, by both pagers, and stays right."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.image import BASE
from tests.lab.lab import Lab
from tests.lab.scene import ADDRESS, CONTAINER, PROGRAMS, Scene

pytestmark = pytest.mark.real

WAIT = "until [ -e /root/adversary.py ]; do sleep 0.1; done; exec python3 /root/adversary.py"
HUGE_PAGES = Path("/proc/sys/vm/nr_hugepages")
SWAP_BYTES = 256 << 20
SWAPPED_KIB = 16 << 10  # half of what the adversary asks the kernel to swap out


@pytest.fixture
def huge_pages() -> Iterator[None]:
    """Give the machine, and so all its hosts, a few huge pages."""
    had = HUGE_PAGES.read_text()
    HUGE_PAGES.write_text("8")
    yield
    HUGE_PAGES.write_text(had)


@pytest.fixture
def swap(tmp_path: Path) -> Iterator[None]:
    """Give the machine some swap, by a loop device: not every file system may hold a swap file."""
    place = tmp_path / "swap"
    with place.open("wb") as file:
        file.truncate(SWAP_BYTES)
    device = of_machine("losetup", "--find", "--show", str(place)).strip()
    try:
        of_machine("mkswap", device)
        of_machine("swapon", device)
        yield
        of_machine("swapoff", device)
    finally:
        of_machine("losetup", "--detach", device)


def of_machine(*argv: str) -> str:
    """Return what a program says, outside of the hosts."""
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


@pytest.mark.usefixtures("huge_pages", "swap")
@pytest.mark.parametrize("pager", ["lifeboat", "criu"])
def test_an_adversary_stays_right(lab: Lab, tmp_path: Path, pager: str) -> None:
    scene = Scene(lab, tmp_path)
    try:
        scene.start_daemons("lazy", pager=pager)
        start(scene)
        before = tell(scene)
        assert before["wrong"] == 0, before
        swapped = tell(scene, "swap")["swapped_kib"]
        assert swapped >= SWAPPED_KIB, "there is swap, and the kernel was asked to use it"
        moved = scene.source.run(["lifeboat", "migrate", CONTAINER, "--to", "beta"], timeout_s=180, check=False)
        assert moved.status == 0, moved.errors
        after = tell(scene, "check")
        scene.wait("two more rounds", lambda: tell(scene)["rounds"] >= after["rounds"] + 2, 60)
        after = tell(scene)
        assert after["wrong"] == 0, after
        assert after["swapped_kib"] == swapped, "it is still the process that was swapped out"
        assert scene.running_on() == ["beta"]
    finally:
        scene.close()


def start(scene: Scene) -> None:
    """Start the container, put the programs into it, and wait until it rages."""
    argv = ["podman", "run", "--detach", "--name", CONTAINER, "--network", "lan", "--ip", ADDRESS]
    scene.source.run([*argv, BASE.name, "sh", "-c", WAIT], timeout_s=60)
    for name in ("tree.py", "adversary.py"):
        scene.source.write(f"/root/{name}", (PROGRAMS / name).read_text())
        scene.source.run(["podman", "cp", f"/root/{name}", f"{CONTAINER}:/root/{name}"])
    scene.wait("the adversary", lambda: bool((scene.ask("count") or {}).get("rounds")), 60)


def tell(scene: Scene, request: str = "count") -> dict[str, Any]:
    """Ask the adversary."""
    found = scene.ask(request, timeout_s=60)
    assert found is not None
    return found
