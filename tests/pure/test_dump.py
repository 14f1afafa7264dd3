"""What is left of a dump's images when the target has everything."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

from migrator.model import Method
from migrator.protocol.journal import Decision, Side
from migrator.settings import MigratorSettings
from migrator.shim.dump import Dump
from migrator.shim.order import Order
from migrator.shim.source import SourceShim

KEPT = {
    "pagemap-1.img",
    "core-1.img",
    "inventory.img",
    "pages",
    "pages-1.imgs",
    "mypages-1.img",
    "descriptors.json",
}


class Dead:
    """The cgroup of a tree that is killed."""

    def kill(self) -> None:
        """See `Cgroup`."""

    def end(self, timeout_s: float) -> None:
        """See `Cgroup`."""
        assert timeout_s > 0


def test_a_release_keeps_podman_from_archiving_the_memory(tmp_path: Path) -> None:
    order = Order(
        migration="0a0a", side=Side.SOURCE, method=Method.FULL, container="a" * 64, journal="", runc="runc", pki="",
        settings=MigratorSettings(),
    )  # fmt: skip  # two lines of facts
    images = tmp_path / "checkpoint"
    dump = Dump(order, ["checkpoint", "--image-path", str(images), "--work-path", str(tmp_path), "web"], tmp_path)
    shim = SimpleNamespace(
        _journal=SimpleNamespace(decision=lambda _: Decision.COMMIT),
        _order=order,
        _cgroup=Dead(),
        _pages=None,
        _dump=dump,
    )
    dump.drop_memory()  # there are none yet
    images.mkdir()
    for name in (*KEPT, "pages-1.img", "pages-12.img"):
        (images / name).write_text("x")
    (tmp_path / "pages-2.img").write_text("not of this dump")
    assert SourceShim._release(cast(SourceShim, shim)) == {"event": "released"}
    assert {path.name for path in images.iterdir()} == KEPT
    assert (tmp_path / "pages-2.img").exists()
