"""Saved output of programs about sensors, arrays and power is judged as what the daemon reads itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.recorded.test_offline import found_in
from watchdog.offline.trial import Finding

DATA = Path(__file__).parents[1] / "data"

SENSORS = json.dumps(
    {
        "coretemp-isa-0000": {
            "Adapter": "ISA adapter",
            "Package id 0": {"temp1_input": 101.0, "temp1_max": 84.0, "temp1_crit": 100.0, "temp1_crit_alarm": 1.0},
            "Core 0": {"temp2_input": 54.0, "temp2_max": 84.0, "temp2_crit": 100.0, "temp2_crit_alarm": 0.0},
        },
        "nct6775-isa-0290": {
            "Adapter": "ISA adapter",
            "in0": {"in0_input": 0.9, "in0_min": 0.0, "in0_max": 1.74, "in0_alarm": 0.0},
            "fan1": {"fan1_input": 1200.0, "fan1_min": 0.0},
        },
    }
)
"""As lm-sensors 3.6 prints it (prog/sensors/chips.c, print_chip_json)."""

MDSTAT = """Personalities : [raid1] [raid6] [raid5] [raid4]
md127 : active raid5 sdc1[3] sdb1[1](F) sda1[0]
      1953258496 blocks super 1.2 level 5, 512k chunk, algorithm 2 [3/2] [U_U]
{recovery}
md0 : active (auto-read-only) raid1 sdb2[1] sda2[0]
      1048512 blocks [2/2] [UU]

md3 : inactive sdd1[0](S)
      976630488 blocks super 1.2

unused devices: <none>
"""
RECOVERY = "      [>......]  recovery =  1.2% (12345/976629248) finish=123.4min speed=131072K/sec"
BTRFS = "[/dev/sda].write_io_errs    0\n[/dev/sda].corruption_errs  12\n[/dev/sdb].write_io_errs    0\n"
UPSC = "battery.charge: 30\nbattery.runtime: 400\nups.status: {status}\n"
APC = "APC : 001,027,0656\nSTATUS : {status}\nBCHARGE : 20.0 Percent\nTIMELEFT : 3.0 Minutes\nUPSNAME : rack\n"


@pytest.mark.parametrize(
    ("text", "kind", "found"),
    [
        (
            SENSORS,
            "the output of sensors -j",
            {("coretemp Package id 0", Finding.FAILING), ("coretemp Core 0", Finding.HEALTHY)},
        ),
        (
            MDSTAT.format(recovery=""),
            "/proc/mdstat",
            {("md127", Finding.FAILING), ("md0", Finding.HEALTHY), ("md3", Finding.FAILING)},
        ),
        (MDSTAT.format(recovery=RECOVERY), "/proc/mdstat", {("md127", Finding.HEALTHY), ("md3", Finding.FAILING)}),
        (UPSC.format(status="OB LB"), "the output of upsc", {("UPS file", Finding.FAILING)}),
        (UPSC.format(status="OL CHRG"), "the output of upsc", {("UPS file", Finding.HEALTHY)}),
        (APC.format(status="ONBATT LOWBATT"), "the output of apcaccess", {("UPS rack", Finding.FAILING)}),
        (APC.format(status="COMMLOST"), "the output of apcaccess", {("UPS rack", Finding.UNKNOWN)}),
        (
            (DATA / "arrays/zpool.txt").read_text(),
            "the output of zpool status",
            {("tank", Finding.FAILING), ("gone", Finding.FAILING)},
        ),
        (
            (DATA / "arrays/lvs.json").read_text(),
            "the output of lvs",
            {("vg0/data", Finding.HEALTHY), ("vg0/mail", Finding.FAILING), ("vg0/logs", Finding.FAILING)},
        ),
    ],
)
def test_the_output_of_programs_is_judged(text: str, kind: str, found: set[tuple[str, Finding]]) -> None:
    recording, judged = found_in(text)
    assert recording.kind == kind
    assert not recording.problem
    assert found <= judged, judged


def test_the_errors_of_a_btrfs_are_counted_for_each_device() -> None:
    recording, _ = found_in(BTRFS)
    assert {item.device.name: item.value for item in recording.readings} == {
        "/dev/sda of btrfs": 12.0,
        "/dev/sdb of btrfs": 0.0,
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("  pool: tank\n state: ONLINE\n\tNAME STATE\n\ttank ONLINE 1.2K 0 0\n", "zpool status -P -p -L"),
        (
            "  pool: tank\n state: ONLINE\n\ttank ONLINE 0 0 0\n\t  /dev/sda ONLINE 0 1.2K 0\n",
            "rounded its counts of tank: zpool status -P -p -L",
        ),
        (
            "  pool: tank\n state: ONLINE\n\ttank ONLINE 0 0 0\n\t  sda ONLINE 0 7 0\n",
            "does not say where the devices of tank are: zpool status -P -p -L",
        ),
        ('{"report": [{"lv": [{"lv_name": "root"}]}]}', "lvs -a --reportformat json -o lv_uuid"),
        ('{"output_version": {"command": "zpool status"}}', "zpool status -j -p"),
        ("coretemp-isa-0000\nCore 0: +54.0 C\n", "sensors -j"),
    ],
)
def test_what_is_written_in_another_way_is_refused_with_the_right_one(text: str, words: str) -> None:
    recording, _ = found_in(text)
    assert recording.readings == ()
    assert words in recording.problem
