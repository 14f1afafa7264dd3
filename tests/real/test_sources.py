"""Sources of this very kernel: a mirror of btrfs that repairs, and loses a half, an XFS that shuts down, a verdict
from the kernel's own line. What a virtual machine does not have (EDAC, BMC) is tested on recordings."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.real.test_signals import LONG_S, Told, file_system, told, watch
from watchdog.alerts.model import AlertSettings, Event, Kind, Webhook
from watchdog.daemon.daemon import Daemon
from watchdog.daemon.places import Places
from watchdog.settings import Settings
from watchdog.signals.arrays import ArraysReader
from watchdog.signals.disks import DisksReader
from watchdog.signals.kernel_log import KernelLogReader
from watchdog.signals.kernel_patterns import load_patterns
from watchdog.signals.model import Device, DeviceKind, Reading
from watchdog.signals.reader import KnownDisk
from watchdog.signals.settings import SignalSettings

__all__ = ["file_system", "told", "watch"]

pytestmark = pytest.mark.real

HALF_BYTES = 160 << 20  # of a sparse file; the least that mkfs.btrfs takes, and a little
XFS_BYTES = 320 << 20  # the same of mkfs.xfs
MIB = 1 << 20
UNTOUCHED_BYTES = 2 * MIB  # the superblock is at 64 KiB (btrfs-man5)
PATIENCE_S = 20.0
RULE = """
[[rule]]
id = "damaged"
signal = "kernel.filesystem_errors"
grows_by = 1
within = "1h"
verdict = "failing"
why = "the kernel reported a damaged file system"
"""


def call(*words: object) -> str:
    """Run a program and return what it says."""
    return subprocess.run([*map(str, words)], check=True, capture_output=True, text=True).stdout


def needs(program: str) -> None:
    """Skip where a program is missing; in CI that is a failure."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


@contextmanager
def loop(image: Path, size: int) -> Iterator[str]:
    """Attach a sparse file to a loop device, and return the device."""
    if not image.exists():
        with image.open("wb") as file:
            file.truncate(size)
    device = call("losetup", "--find", "--show", image).strip()
    try:
        yield device
    finally:
        call("losetup", "--detach", device)


@contextmanager
def mounted(device: str, place: Path, *options: str) -> Iterator[Path]:
    """Mount a device for a while."""
    place.mkdir(exist_ok=True)
    call("mount", *options, device, place)
    try:
        yield place
    finally:
        call("umount", place)


def arrays(reader: ArraysReader, place: str) -> dict[tuple[str, str], Reading]:
    """Return the readings of one btrfs by signal and device."""
    found = reader.read(time.time())
    return {(item.signal, item.device.name): item for item in found if place in item.device.name}


def test_a_mirror_of_btrfs_repairs_counts_and_loses_a_half(tmp_path: Path) -> None:
    needs("mkfs.btrfs")
    reader, label, halves = ArraysReader(LONG_S), "lifeboat-mirror", [tmp_path / "one", tmp_path / "two"]
    with ExitStack() as both:
        devices = [both.enter_context(loop(half, HALF_BYTES)) for half in halves]
        call("mkfs.btrfs", "-q", "-L", label, "-d", "raid1", "-m", "raid1", *devices)
        with mounted(devices[0], tmp_path / "place") as place:
            (place / "file").write_bytes(bytes(range(256)) * 16384)
            call("sync", "-f", place)
            found = arrays(reader, label)
            assert found["array.degraded", label].value == 0.0
            assert found["array.member_errors", f"device 2 of {label}"].value == 0.0
        scribble(halves[1])
        with mounted(devices[0], tmp_path / "place") as place:
            call("btrfs", "scrub", "start", "-B", place)
            found = arrays(reader, label)
            assert found["array.member_errors", f"device 1 of {label}"].value == 0.0
            assert (found["array.member_errors", f"device 2 of {label}"].value or 0) >= 1
            assert found["array.degraded", label].value == 0.0
            assert (place / "file").read_bytes() == bytes(range(256)) * 16384
    call("btrfs", "device", "scan", "--forget")
    with loop(halves[0], HALF_BYTES) as device, mounted(device, tmp_path / "place", "-o", "degraded"):
        found = arrays(reader, label)
        assert (found["array.degraded", label].value, found["array.no_redundancy", label].value) == (1.0, 1.0)
        assert found["array.failed", label].value == 0.0


def scribble(image: Path) -> None:
    """Spoil one half of a mirror behind the kernel's back, all of it but for its head."""
    with image.open("r+b") as file:
        for at in range(UNTOUCHED_BYTES, HALF_BYTES, MIB):
            file.seek(at)
            if file.read(MIB).strip(b"\0"):
                file.seek(at)
                file.write(b"\xa5" * MIB)


def test_an_xfs_that_shuts_down_is_told_at_once(told: Told, watch: Callable[..., None], tmp_path: Path) -> None:
    needs("mkfs.xfs")
    watch(KernelLogReader(LONG_S, load_patterns(), state=tmp_path / "kernel-log.json"))
    told.wait(lambda found: found.get(("reader.blind", "reader kernel")) == 0.0)
    with loop(tmp_path / "image", XFS_BYTES) as device:
        call("mkfs.xfs", "-q", device)
        with mounted(device, tmp_path / "place") as place:
            where = str(place)
            call("xfs_io", "-x", "-c", "shutdown", where)
            told.wait(lambda found: (found.get(("kernel.filesystem_shutdowns", where)) or 0) >= 1)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon that follows the kernel log only, judges by one rule, and can alert nobody."""
    (tmp_path / "local").mkdir()
    (tmp_path / "local/rules.toml").write_text(RULE)
    others = {
        name: False
        for name, field in SignalSettings.model_fields.items()
        if field.annotation is bool and name != "kernel_log"
    }
    settings = Settings(
        signals=SignalSettings.model_validate({**others, "kernel_log_poll_s": LONG_S}),
        alerts=AlertSettings(webhook=(Webhook(url="http://127.0.0.1:9/"),)),
    )
    places = Places(
        tmp_path / "etc", tmp_path / "state", tmp_path / "run", tmp_path / "shipped", tmp_path / "local"
    )
    found = Daemon(settings, places)
    found.start()
    thread = threading.Thread(target=found.run)
    thread.start()
    yield found
    found.stop_soon()
    thread.join()
    found.stop()


def eventually(what: str, happened: Callable[[], bool]) -> None:
    """Wait until something happened."""
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline, f"waited for {what}"
        time.sleep(0.01)


def test_the_kernels_line_becomes_a_verdict_and_an_alert_without_a_poll(
    daemon: Daemon, file_system: tuple[Path, str]
) -> None:
    place, device = file_system
    eventually("the log to be read", lambda: bool(daemon.readings.history().series))
    assert not daemon.assessment.acting
    Path(f"/sys/fs/ext4/{device}/trigger_fs_error").write_text("1\n")
    eventually("the verdict", lambda: bool(daemon.assessment.fired))
    state = daemon.assessment.fired[0]
    assert (state.rule.id, state.device.name) == ("damaged", str(place))
    read_at = next(s for s in daemon.readings.history().series.values() if s.signal == "kernel.filesystem_errors")
    eventually("the alert", lambda: bool(alerts(daemon)))
    alert = alerts(daemon)[0]
    assert (alert.kind, alert.signals[0].rule) == (Kind.VERDICT, "damaged")
    assert read_at.latest.at <= alert.at


def alerts(daemon: Daemon) -> list[Event]:
    """Return the alerts of rules and verdicts that wait for their receiver."""
    found = [parcel.event for parcel in daemon.deliverer._outbox.due(time.time() + LONG_S)]
    return [event for event in found if event.kind is Kind.VERDICT]


def test_a_disk_that_vanishes_is_told_at_the_kernels_event(
    told: Told, watch: Callable[..., None], tmp_path: Path
) -> None:
    real = [path for path in sorted(Path("/sys/class/block").iterdir()) if "/virtual/" not in str(path.resolve())]
    if not real:
        pytest.skip("this machine has no disk")
    file = tmp_path / "disk"
    file.touch()
    disk = Device(DeviceKind.DISK, "disk:vanishing", str(file))
    key = ("disk.missing", str(file))
    watch(DisksReader(LONG_S, lambda: {disk.identity: KnownDisk(disk, 0.0)}))
    told.wait(lambda found: found.get(key) == 0.0)
    file.unlink()

    def tell() -> bool:
        """Have the kernel send an event, as `udevadm trigger` does; who listens too late hears the next one."""
        (real[0] / "uevent").write_text("add\n")
        return told.values.get(key) == 1.0

    eventually("the loss", tell)
