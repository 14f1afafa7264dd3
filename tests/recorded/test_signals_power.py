"""Power supplies of the kernel, UPS of the kernel, NUT and apcupsd."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from migrator.command import CommandResult
from tests.recorded.signal_data import plant, values
from watchdog.signals.power import PLACE, PowerReader, UpsReader
from watchdog.signals.reader import Remembered

NUT = """\
battery.charge: 100
battery.runtime: 1740
device.type: ups
ups.load: 23
ups.status: {}
"""
APC = """\
APC      : 001,036,0000
STATUS   : {}
LOADPCT  : 12.0
BCHARGE  : 98.0
TIMELEFT : 30.5
UPSNAME  : rack
SERIALNO : AS0000000001
"""


def test_a_supply_that_delivered_can_fail_and_one_that_never_did_cannot(tmp_path: Path) -> None:
    plant("power/class.txt", tmp_path / PLACE)
    reader = PowerReader(30, tmp_path)
    first = values(reader.read(1.0))
    assert first["power supply PSU1", "power.supply_failed"] == 0.0
    assert ("power supply PSU2", "power.supply_failed") not in first
    assert first["power supplies", "power.redundancy_lost"] == 0.0
    (tmp_path / PLACE / "PSU1/online").write_text("0\n")
    second = values(reader.read(2.0))
    assert second["power supply PSU1", "power.supply_failed"] == 1.0
    assert second["power supplies", "power.redundancy_lost"] == 1.0


def test_a_supply_that_failed_while_we_were_away_is_told(tmp_path: Path) -> None:
    plant("power/class.txt", tmp_path / PLACE)
    reader = PowerReader(30, tmp_path, remembered=Remembered(trusted=frozenset({"power:PSU2"})))
    assert values(reader.read(1.0))["power supply PSU2", "power.supply_failed"] == 1.0


def test_a_supply_that_vanishes_is_unreadable(tmp_path: Path) -> None:
    plant("power/class.txt", tmp_path / PLACE)
    reader = PowerReader(30, tmp_path)
    reader.read(1.0)
    shutil.rmtree(tmp_path / PLACE / "PSU0")
    found = values(reader.read(2.0))
    assert found["power supply PSU0", "power.supply_failed"] is None
    assert found["power supplies", "power.redundancy_lost"] == 1.0


def test_the_kernels_ups_is_read_and_a_mouse_is_none(tmp_path: Path) -> None:
    plant("power/class.txt", tmp_path / PLACE)
    found = values(PowerReader(30, tmp_path).read(1.0))
    assert found["UPS ups0", "ups.on_battery"] == 1.0
    assert found["UPS ups0", "ups.charge"] == 64
    assert not any("mouse" in name for name, _ in found)


def test_a_host_whose_kernel_knows_no_supply_has_nothing_to_tell(tmp_path: Path) -> None:
    assert PowerReader(30, tmp_path).read(1.0) == ()


class Daemons:
    """upsc and apcaccess, as far as they are installed."""

    def __init__(self, **said: str) -> None:
        self.said = said
        self.errors = ""

    def which(self, program: str) -> str | None:
        """Find a program."""
        return f"/usr/bin/{program}" if program in self.said else None

    def door(self, argv: Sequence[str], **_: object) -> CommandResult:
        """Run one."""
        text = "rack\n" if "-l" in argv and self.said[argv[0]] else self.said[argv[0]]
        return CommandResult(tuple(argv), 0, text, self.errors)

    def reader(self) -> UpsReader:
        """Return a reader that asks them."""
        return UpsReader(30, door=self.door, which=self.which)


def test_a_ups_of_nut_is_read() -> None:
    found = values(Daemons(upsc=NUT.format("OB DISCHRG LB")).reader().read(1.0))
    assert found == {
        ("UPS rack", "ups.unreachable"): 0.0,
        ("UPS rack", "ups.on_battery"): 1.0,
        ("UPS rack", "ups.battery_low"): 1.0,
        ("UPS rack", "ups.replace_battery"): 0.0,
        ("UPS rack", "ups.runtime"): 1740.0,
        ("UPS rack", "ups.charge"): 100.0,
        ("UPS rack", "ups.load"): 23.0,
    }


def test_a_ups_of_apcupsd_is_read() -> None:
    found = values(Daemons(apcaccess=APC.format("ONLINE REPLACEBATT")).reader().read(1.0))
    assert found["UPS rack", "ups.on_battery"] == 0.0
    assert found["UPS rack", "ups.replace_battery"] == 1.0
    assert found["UPS rack", "ups.runtime"] == 1830.0


def test_a_ups_whose_line_is_cut_is_unreachable_and_not_well() -> None:
    found = values(Daemons(apcaccess=APC.format("COMMLOST")).reader().read(1.0))
    assert found["UPS rack", "ups.unreachable"] == 1.0
    assert found["UPS rack", "ups.on_battery"] is None
    daemons = Daemons(upsc="x")
    daemons.errors = "Error: Data stale"
    assert values(daemons.reader().read(1.0))["UPS rack", "ups.on_battery"] is None


def test_a_daemon_that_stops_leaves_its_ups_unreadable() -> None:
    daemons = Daemons(upsc=NUT.format("OL"))
    reader = daemons.reader()
    reader.read(1.0)
    daemons.said["upsc"] = ""
    assert set(values(reader.read(2.0)).values()) == {None}


def test_a_host_without_such_daemons_has_nothing_to_tell() -> None:
    assert Daemons().reader().read(1.0) == ()
