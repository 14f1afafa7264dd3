"""UPS by NUT's own programs: its server, its client, and its driver for a UPS that a file describes."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from migrator import command
from migrator.command import CommandResult
from tests.real.test_sources import PATIENCE_S, eventually
from watchdog.signals.power import UpsReader

pytestmark = pytest.mark.real

NUT = next(
    (place for place in map(Path, ("/lib/nut", "/usr/lib/nut", "/usr/libexec/nut")) if (place / "upsd").exists()),
    None,
)
UPS = "ups.status: {status}\nbattery.charge: 35\nbattery.runtime: 240\nTIMER 1\n"


class Upsd:
    """NUT's own programs with its dummy driver, on a loopback of their own."""

    def __init__(self, place: Path, programs: Path) -> None:
        self._file = place / "eaton.seq"
        self._file.write_text(UPS.format(status="OL"))
        (place / "ups.conf").write_text("[eaton]\n driver = dummy-ups\n port = eaton.seq\n")
        (place / "upsd.conf").write_text("LISTEN 127.0.0.1 3493\n")
        (place / "upsd.users").touch()
        names = ("NUT_CONFPATH", "NUT_STATEPATH", "NUT_PIDPATH", "NUT_ALTPIDPATH")
        self._environment = {**os.environ, **dict.fromkeys(names, str(place))}
        self._network = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        eventually(
            "a network",
            lambda: os.readlink(f"/proc/{self._network.pid}/ns/net") != os.readlink("/proc/self/ns/net"),
        )
        self.ask(["ip", "link", "set", "lo", "up"])
        self.driver = self._start(programs / "dummy-ups", "-F", "-a", "eaton", "-u", "root")
        eventually("the driver", (place / "dummy-ups-eaton").exists)
        self._server = self._start(programs / "upsd", "-F", "-u", "root")

    def ask(self, argv: Sequence[str], *, timeout_s: float = PATIENCE_S, check: bool = True) -> CommandResult:
        """Run a program where upsd is."""
        return command.run(self._there(argv), timeout_s=timeout_s, check=check, env=self._environment)

    def say(self, status: str) -> None:
        """Let the UPS have another status."""
        self._file.write_text(UPS.format(status=status))

    def close(self) -> None:
        """End all programs."""
        for program in (self._server, self.driver, self._network):
            program.kill()
            program.wait()

    def _start(self, program: Path, *options: str) -> subprocess.Popen[bytes]:
        argv = self._there([str(program), *options])
        quiet = subprocess.DEVNULL
        return subprocess.Popen(argv, env=self._environment, stdout=quiet, stderr=quiet)

    def _there(self, argv: Sequence[str]) -> list[str]:
        return ["nsenter", "--net", "--target", str(self._network.pid), *argv]


@pytest.fixture
def upsd(tmp_path: Path) -> Iterator[Upsd]:
    """NUT, with a UPS on the line."""
    if NUT is None:
        pytest.skip("nut-server is not installed")
    found = Upsd(tmp_path, NUT)
    yield found
    found.close()


def test_nuts_own_programs_tell_of_a_battery_and_of_a_driver_that_died(upsd: Upsd) -> None:
    reader = UpsReader(3600.0, door=upsd.ask)

    def told() -> dict[str, float | None]:
        return {item.signal: item.value for item in reader.read(time.time()) if item.device.name == "UPS eaton"}

    eventually("the UPS", lambda: told().get("ups.runtime") == 240.0)
    assert (told()["ups.on_battery"], told()["ups.charge"]) == (0.0, 35.0)
    upsd.say("OB LB")
    eventually("the battery", lambda: (told()["ups.on_battery"], told()["ups.battery_low"]) == (1.0, 1.0))
    upsd.driver.kill()
    eventually("blindness", lambda: told()["ups.on_battery"] is None)
