"""Find disks, and start their self-tests: pySMART, through our own door to programs.

pySMART (1.4.3) finds the devices and their interface types, and knows how to start a self-test. How a drive
is comes from `smartctl --json` (see `smart`), for pySMART reads text, has no time-out and takes a drive that
does not answer for one without trouble. Its `DeviceList` would also ask every drive up to seven times without
regard to sleep and then drop the ones that did not answer, so only the scan itself is used.
"""

from __future__ import annotations

import re

from pySMART import Device as SmartDevice
from pySMART.smartctl import Smartctl

from migrator.command import CommandResult, run
from migrator.errors import CommandError, ExecutionError
from watchdog.signals.smart_answer import Drive

SCAN_TIMEOUT_S = 30.0  # it opens every device; one that is stuck must not hold up the reading of the others
SELF_TEST_TIMEOUT_S = 60.0  # to start it: the drive then tests itself by itself
SELF_TEST_KINDS = ("short", "long")
SELF_TEST_STARTED = 0
"""First value of pySMART's `Device.run_selftest`: 0 started, 1 others run, 2 not supported, 3 refused."""

LINE = re.compile(r"^(?:# )?(?P<path>/\S+) -d (?P<type>\S+)")
"""A line of `smartctl --scan-open`: "/dev/sda -d sat # ..."; one that did not open has "# " ahead of it."""


class Door(Smartctl):  # type: ignore[misc]  # pySMART publishes no types
    """pySMART's way to smartctl, led through the one door: with a time-out, and killed as a group."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__(smartctl_path="smartctl")
        self._timeout_s = timeout_s

    def _exec(self, cmd: list[str]) -> tuple[list[str], int]:
        result: CommandResult = run(cmd, timeout_s=self._timeout_s, check=False)
        return result.output.splitlines(), result.status


def scan() -> tuple[Drive, ...]:
    """Return the drives of this host, also those that do not open; raise `CommandError` when it fails.

    An empty answer means that there are none; a scan that failed must never look like that.
    """
    lines, status = Door(SCAN_TIMEOUT_S).generic_call(["--scan-open"])
    if status != 0:
        said = lines[-1] if lines else "no message"
        raise CommandError(f"scanning for drives failed: {said} [exit status {status}]", code="scan-failed")
    return drives_in(lines)


def drives_in(lines: list[str]) -> tuple[Drive, ...]:
    """Return the drives in the lines of a scan. Pure."""
    found = [match for line in lines if (match := LINE.match(line))]
    return tuple(dict.fromkeys(Drive(match["path"], match["type"]) for match in found))


def self_test(drive: Drive, kind: str = "short") -> str:
    """Start a drive's self-test, `short` or `long`, and return what the drive said.

    The result appears as `smart.selftest_failed` when it is done. Raises `ExecutionError` when it did not
    start, `CommandError` when the drive does not answer.
    """
    if kind not in SELF_TEST_KINDS:
        raise ExecutionError(f"no self-test {kind!r}", code="no-such-test", hint="short or long")
    device = SmartDevice(drive.path, interface=drive.type, smartctl=Door(SELF_TEST_TIMEOUT_S))
    status, said, *_ = device.run_selftest(kind)
    if status != SELF_TEST_STARTED:
        raise ExecutionError(f"{drive.path}: the {kind} self-test did not start: {said}", code="self-test-failed")
    return str(said)
