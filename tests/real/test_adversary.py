"""A process that does everything with its memory that a kernel allows is moved, by both pagers, and stays right."""

from __future__ import annotations

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


@pytest.fixture
def huge_pages() -> Iterator[None]:
    """Give the machine, and so all its hosts, a few huge pages."""
    had = HUGE_PAGES.read_text()
    HUGE_PAGES.write_text("8")
    yield
    HUGE_PAGES.write_text(had)


@pytest.mark.usefixtures("huge_pages")
@pytest.mark.parametrize("pager", ["lifeboat", "criu"])
def test_an_adversary_stays_right(lab: Lab, tmp_path: Path, pager: str) -> None:
    scene = Scene(lab, tmp_path)
    try:
        scene.start_daemons("lazy", pager=pager)
        start(scene)
        before = tell(scene)
        assert before["wrong"] == 0, before
        moved = scene.source.run(["lifeboat", "migrate", CONTAINER, "--to", "beta"], timeout_s=180, check=False)
        assert moved.status == 0, moved.errors
        after = tell(scene, "check")
        scene.wait("two more rounds", lambda: tell(scene)["rounds"] >= after["rounds"] + 2, 60)
        after = tell(scene)
        assert after["wrong"] == 0, after
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
