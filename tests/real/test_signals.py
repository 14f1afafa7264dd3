"""Signals from a real kernel: a file system that reports an error and goes read-only, tracepoints, uevents."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from watchdog.signals.filesystems import FileSystemReader
from watchdog.signals.kernel_log import KernelLogReader
from watchdog.signals.kernel_patterns import load_patterns
from watchdog.signals.model import Reading
from watchdog.signals.monitor import SignalMonitor
from watchdog.signals.reader import Reader
from watchdog.signals.tracing import Tracing

pytestmark = pytest.mark.real

LONG_S = 3600.0  # no poll comes to the rescue
PATIENCE_S = 20.0
IMAGE_BYTES = 8 << 20
INSTANCE = f"lifeboat-test-{os.getpid()}"  # hosts of the lab share one kernel, and one program reads an instance


class Told:
    """The newest value of each signal of each device; `wait` returns when some have come."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, str], float | None] = {}
        self._changed = threading.Condition()

    def __call__(self, readings: Sequence[Reading]) -> None:
        with self._changed:
            self.values |= {(item.signal, item.device.name): item.value for item in readings}
            self._changed.notify_all()

    def wait(self, enough: Callable[[dict[tuple[str, str], float | None]], bool]) -> None:
        """Wait until `enough` holds; fail when it does not in time."""
        with self._changed:
            assert self._changed.wait_for(lambda: enough(self.values), PATIENCE_S), self.values


@pytest.fixture
def file_system(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """An ext4 on a loop device, that goes read-only at its first error: where it is mounted, and its device."""
    image, place = tmp_path / "image", tmp_path / "mounted"
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    place.mkdir()
    subprocess.run(["mkfs.ext4", "-q", "-e", "remount-ro", str(image)], check=True)
    loop = subprocess.run(["losetup", "--find", "--show", str(image)], check=True, capture_output=True, text=True)
    device = loop.stdout.strip()
    subprocess.run(["mount", device, str(place)], check=True)
    yield place, Path(device).name
    subprocess.run(["umount", str(place)], check=True)
    subprocess.run(["losetup", "--detach", device], check=True)


@pytest.fixture
def told() -> Told:
    """What the readers tell."""
    return Told()


@pytest.fixture
def watch(told: Told) -> Iterator[Callable[..., None]]:
    """Poll readers until the test ends."""
    monitors: list[SignalMonitor] = []

    def start(*readers: Reader) -> None:
        monitors.append(SignalMonitor(readers, told))
        monitors[-1].start()

    yield start
    for monitor in monitors:
        monitor.stop()


def test_a_file_system_error_is_told_by_the_kernel_itself(
    file_system: tuple[Path, str], told: Told, watch: Callable[..., None], tmp_path: Path
) -> None:
    place, device = file_system
    mounts = FileSystemReader(LONG_S, Path("/proc/self/mountinfo"))
    watch(KernelLogReader(LONG_S, load_patterns(), state=tmp_path / "kernel-log.json"), mounts)
    where = str(place)
    told.wait(lambda found: found.get(("filesystem.read_only", where)) == 0.0)
    told.wait(lambda found: found.get(("reader.blind", "reader kernel")) == 0.0)
    Path(f"/sys/fs/ext4/{device}/trigger_fs_error").write_text("1\n")
    told.wait(lambda found: (found.get(("kernel.filesystem_errors", where)) or 0) >= 1)
    told.wait(lambda found: (found.get(("kernel.filesystem_shutdowns", where)) or 0) >= 1)
    told.wait(lambda found: found.get(("filesystem.read_only", where)) == 1.0)
    assert (told.values["filesystem.errors", where] or 0) >= 1


def test_an_admins_remount_is_no_fault(
    file_system: tuple[Path, str], told: Told, watch: Callable[..., None]
) -> None:
    place, _ = file_system
    watch(FileSystemReader(LONG_S, Path("/proc/self/mountinfo")))
    where = str(place)
    told.wait(lambda found: found.get(("filesystem.read_only", where)) == 0.0)
    marker = place.parent / "another"
    marker.mkdir()
    subprocess.run(["mount", "-o", "remount,ro", where], check=True)
    subprocess.run(["mount", "--bind", where, str(marker)], check=True)
    try:
        fresh = FileSystemReader(LONG_S, Path("/proc/self/mountinfo")).read(1.0)
        assert not any(item.device.name == where and item.value for item in fresh)
    finally:
        subprocess.run(["umount", str(marker)], check=True)


@pytest.fixture
def tracefs(tmp_path: Path) -> Iterator[Path]:
    """The kernel's tracing; skipped where it has none."""
    place = tmp_path / "tracing"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tracefs", "tracefs", str(place)], check=False, capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("this kernel has no tracefs")
    yield place
    instance = place / "instances" / INSTANCE
    if instance.exists():
        instance.rmdir()
    subprocess.run(["umount", str(place)], check=True)


def test_events_of_the_kernel_are_heard_in_an_instance_of_our_own(tracefs: Path) -> None:
    tracing = Tracing(tracefs, ("sched/sched_process_exec", "mce/no_such_event"), INSTANCE)
    assert list(tracing.events()) == []
    assert tracing.heard == {"sched_process_exec"}
    assert (tracefs / "instances" / INSTANCE / "buffer_percent").read_text().strip() == "0"
    subprocess.run(["true"], check=True)
    assert tracing.descriptor is not None
    assert any("true" in event.text for event in tracing.events() if event.name == "sched_process_exec")
    os.close(tracing.descriptor)
