"""pySMART through the one door, with a program that stands for smartctl on PATH."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from migrator.errors import CommandError, ExecutionError
from watchdog.signals.settings import SignalSettings
from watchdog.signals.smart import SmartReader
from watchdog.signals.smart_answer import Drive
from watchdog.signals.smart_scan import drives_in, scan, self_test

SCAN = """\
/dev/sda -d sat # /dev/sda [SAT], ATA device
/dev/nvme0 -d nvme # /dev/nvme0, NVMe device
/dev/bus/0 -d megaraid,4 # /dev/bus/0 [megaraid_disk_04], SCSI device
# /dev/sdb -d scsi # /dev/sdb, SCSI device, open failed: No such device or address
"""


def smartctl(place: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a shell script in smartctl's place."""
    program = place / "smartctl"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:/usr/bin:/bin")


def test_lines_of_a_scan_are_drives_also_those_that_do_not_open() -> None:
    assert drives_in(SCAN.splitlines()) == (
        Drive("/dev/sda", "sat"),
        Drive("/dev/nvme0", "nvme"),
        Drive("/dev/bus/0", "megaraid,4"),
        Drive("/dev/sdb", "scsi"),
    )


def test_other_lines_are_none() -> None:
    assert drives_in(["", "# scan_smart_devices: glob(3) aborted matching pattern /dev/discs/disc*"]) == ()


def test_the_scan_is_smartctls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smartctl(tmp_path, f"[ $1 = --scan-open ] && cat <<'END'\n{SCAN}END", monkeypatch)
    assert scan() == drives_in(SCAN.splitlines())


def test_a_host_without_drives_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smartctl(tmp_path, "exit 0", monkeypatch)
    assert scan() == ()


def test_a_scan_that_fails_is_no_host_without_drives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smartctl(tmp_path, "echo 'out of memory'; exit 1", monkeypatch)
    with pytest.raises(CommandError, match="out of memory"):
        scan()


def test_without_smartctl_the_scan_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CommandError, match="smartctl is not installed") as caught:
        scan()
    assert caught.value.code == "command-missing"


def test_a_self_test_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "calls"
    script = f"""echo "$@" >> {log}
case "$*" in
*"-t short"*) echo; echo; echo; echo 'Testing has begun.'; echo 'Please wait 2 minutes for test to complete.' ;;
*) cat <<'END'
smartctl 7.4 2023-08-01 r5530 [x86_64-linux] (recorded)
Copyright (C) 2002-23, Bruce Allen, Christian Franke, www.smartmontools.org

=== START OF INFORMATION SECTION ===
Device Model:     Recorded HD4000
Serial Number:    ZRT00001
User Capacity:    4,000,787,030,016 bytes [4.00 TB]
Rotation Rate:    7200 rpm
SMART support is: Available - device has SMART capability.
SMART support is: Enabled

=== START OF READ SMART DATA SECTION ===
SMART overall-health self-assessment test result: PASSED

General SMART Values:
Offline data collection capabilities:    (0x7b) SMART execute Offline immediate.
                                        Self-test supported.
END
;;
esac"""
    smartctl(tmp_path, script, monkeypatch)
    self_test(Drive("/dev/sda", "sat"))
    assert any("-t short" in line and line.endswith("/dev/sda") for line in log.read_text().splitlines())


def test_a_self_test_nobody_knows_is_an_error() -> None:
    with pytest.raises(ExecutionError, match="no self-test"):
        self_test(Drive("/dev/sda", "sat"), "endless")


def test_a_drive_that_hangs_is_given_up_in_time_and_the_others_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = """case "$*" in
--scan-open) echo '/dev/hung -d sat # a'; echo '/dev/well -d sat # b' ;;
*hung) sleep 60 ;;
*) echo '{"smartctl": {"exit_status": 0}, "device": {"protocol": "ATA"}, "smart_status": {"passed": true}}' ;;
esac"""
    smartctl(tmp_path, script, monkeypatch)
    began = time.monotonic()
    readings = SmartReader(SignalSettings(smart_timeout_s=0.5), sysfs=tmp_path).read(1.0)
    assert time.monotonic() - began < 10
    found = {(item.device.name, item.signal): item.value for item in readings}
    assert found["/dev/hung", "smart.unresponsive"] == 1.0
    assert found["/dev/hung", "smart.health_failed"] is None
    assert found["/dev/well", "smart.health_failed"] == 0.0
