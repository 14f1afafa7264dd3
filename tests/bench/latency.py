"""`./run bench latency`: how long it takes from a change under the daemon's eyes to its verdict.

The real daemon watches the host of `./run bench idle`. Three things happen to it, each many times: the kernel
reports a file system error (ext4 on a loop device, told to by its own `trigger_fs_error`); a disk's device file
vanishes and the kernel sends an event about a disk; a file of a sensor changes, which only a poll can see. A rule
of the bench waits for each of them, and the time ends when the daemon logs that this rule has fired.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench import idle

PAGE = idle.CHECKOUT / "docs/bench-latency.md"
LOG = Path("/run/lifeboatd.log")
POLL_S = 10.0
EVENT_LIMIT_S = 1.0
PATIENCE_S = 60.0
PLACE = Path("/run/bench-fs")
DISKS = Path("/run/bench-disks")
IMAGE_BYTES = 8 << 20
FIRST_CELSIUS = 50
KERNEL_GAP_S = 1.0  # ext4 tells ten errors within five seconds, and then keeps silent (fs/ext4/super.c)
EVENT_GAP_S = 13.0  # a reader is not woken by events more often; see watchdog/signals/device_events.py
LOOK_S = 0.002


def main(argv: list[str]) -> int:
    """Run the bench; return its exit status."""
    parser = argparse.ArgumentParser(prog="./run bench latency", description=__doc__)
    parser.add_argument("--times", type=int, default=10, help="how often each of them happens (at most 12)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--page", action="store_true", help=f"write {PAGE.name}")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.inside is None:
        return enter(argv)
    result = measure(arguments.inside, min(arguments.times, idle.DISKS // 2))
    idle.publish(result, arguments, PAGE, page)
    events = max(*result["kernel_s"], *result["udev_s"])
    return 0 if events < EVENT_LIMIT_S and max(result["poll_s"]) < POLL_S + EVENT_LIMIT_S else 1


def enter(argv: list[str]) -> int:
    """Run the rest in a mount namespace of its own, which takes everything along when it ends."""
    with tempfile.TemporaryDirectory(prefix="bench-latency-") as directory:
        command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-m", "tests.bench", "latency"]
        return subprocess.run([*command, *argv, "--inside", directory], cwd=idle.CHECKOUT, check=False).returncode


def measure(base: Path, times: int) -> dict[str, Any]:
    """Let everything happen, and return how long each verdict took."""
    idle.build(base)
    settings = Path("/etc/lifeboat")
    (settings / "lifeboat.toml").write_text(f"[signals]\nhwmon_poll_s = {POLL_S}\n")
    (settings / "policies").mkdir()
    (settings / "policies/bench.toml").write_text("\n".join(rules(times)))
    for shipped in (idle.CHECKOUT / "policies").glob("*.toml"):  # only the bench's own rules shall fire
        (settings / "policies" / shipped.name).symlink_to("/dev/null")
    with file_system(base / "image") as loop:
        daemon = idle.start_daemon()
        try:
            idle.await_start(daemon)
            time.sleep(EVENT_GAP_S)
            idle.all_signals()
            return {
                "host": idle.host(),
                "times": times,
                "poll_interval_s": POLL_S,
                "kernel_s": [
                    timed(f"bench-kernel-{n}", lambda: trigger(loop), KERNEL_GAP_S) for n in range(1, times + 1)
                ],
                "udev_s": [timed(f"bench-gone-{n}", removal(n), EVENT_GAP_S) for n in range(1, times + 1)],
                "poll_s": [timed(f"bench-heat-{n}", heat(n), 2.3 * n % POLL_S) for n in range(1, times + 1)],
            }
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(30)


def rules(times: int) -> Iterator[str]:
    """Return a rule for each thing that happens."""
    for number in range(1, times + 1):
        yield rule(
            f"bench-kernel-{number}", "kernel.filesystem_errors", f'grows_by = {number}\nwithin = "1h"', str(PLACE)
        )
        yield rule(f"bench-gone-{number}", "disk.missing", "is_set = true", str(disk(number)))
        yield rule(
            f"bench-heat-{number}", "hwmon.temperature", f"at_least = {FIRST_CELSIUS + number}", "chip0 temp1"
        )


def rule(name: str, what: str, condition: str, device: str) -> str:
    """Return a rule that alerts."""
    return (
        f'[[rule]]\nid = "{name}"\nsignal = "{what}"\n{condition}\nwhere = {{ name = "{device}" }}\n'
        f'verdict = "suspect"\nmode = "alert"\nwhy = "the bench"\n'
    )


def disk(number: int) -> Path:
    """Return the device file of one of the SATA disks."""
    return DISKS / f"sd{chr(ord('a') + 2 * (number - 1))}"


@contextmanager
def file_system(image: Path) -> Iterator[str]:
    """Mount an ext4 on a loop device; returns the device's name."""
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    subprocess.run(["mkfs.ext4", "-q", "-e", "continue", str(image)], check=True)
    loop = subprocess.run(["losetup", "--find", "--show", str(image)], check=True, capture_output=True, text=True)
    device = loop.stdout.strip()
    PLACE.mkdir()
    idle.mount(device, PLACE)
    try:
        yield Path(device).name
    finally:
        subprocess.run(["umount", "--lazy", str(PLACE)], check=True)
        subprocess.run(["losetup", "--detach", device], check=True)


def trigger(loop: str) -> None:
    """Have the kernel find an error."""
    Path(f"/sys/fs/ext4/{loop}/trigger_fs_error").write_text("1\n")


def removal(number: int) -> Callable[[], None]:
    """Return what lets a disk vanish, and has the kernel send an event about a disk of this machine.

    The event is an `add`, as `udevadm trigger` sends it: it harms nothing.
    """
    real = next(
        path for path in sorted(Path("/sys/class/block").iterdir()) if "/virtual/" not in str(path.resolve())
    )

    def vanish() -> None:
        disk(number).unlink()
        (real / "uevent").write_text("add\n")

    return vanish


def heat(number: int) -> Callable[[], None]:
    """Return what makes a sensor warmer."""

    def warm() -> None:
        Path("/sys/class/hwmon/hwmon0/temp1_input").write_text(f"{1000 * (FIRST_CELSIUS + number)}\n")

    return warm


def timed(name: str, happen: Callable[[], None], gap_s: float) -> float:
    """Let something happen, and return after how many seconds its rule has fired; wait a little afterwards."""
    if f"[{name}]" in LOG.read_text():
        raise SystemExit(f"{name} fired before anything happened")
    began = time.monotonic()
    happen()
    while f"[{name}]" not in LOG.read_text():
        if time.monotonic() - began > PATIENCE_S:
            raise SystemExit(f"{name} does not fire:\n{LOG.read_text()[-2000:]}")
        time.sleep(LOOK_S)
    took_s = time.monotonic() - began
    time.sleep(gap_s)
    return round(took_s, 3)


def page(result: Mapping[str, Any]) -> str:
    """Return the page in docs/."""
    rows = [
        ("a line of the kernel log", result["kernel_s"], "1 s"),
        ("an event about a device (udev)", result["udev_s"], "1 s"),
        (f"a sensor's file, polled every {result['poll_interval_s']:g} s", result["poll_s"], "one poll interval"),
    ]
    table = "\n".join(
        f"| {what} | {median(found):.2f} s | {max(found):.2f} s | {limit} |" for what, found, limit in rows
    )
    return f"""# How long it takes from a change to the verdict

`./run bench latency --page` writes this page. The daemon of docs/bench-idle.md watches 24 disks, 64 DIMMs and 200
sensors. Each of these happened {result["times"]} times, and the time ends when the daemon logs that its rule has
fired. Measured on {result["host"]}.

| what changes | median | longest | may be |
| --- | --- | --- | --- |
{table}

The kernel's line is a real one: ext4 on a loop device reports an error. The event is a real one too, about a disk
of the machine; what it makes the daemon see is a device file that is gone, which is looked for once more a quarter
of a second later. Tracepoints take the way of the kernel log (a descriptor that is waited for); this kernel has
none of those by which machine checks come, so they were not timed.
"""
