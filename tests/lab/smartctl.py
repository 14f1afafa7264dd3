#!/usr/bin/python3
"""The lab's smartctl: answers with recorded drives, so that an unmodified daemon reads an unmodified program.

It stands at /usr/sbin/smartctl of a lab host and needs nothing but Python. A drive is one file
/var/lib/lab-smart/NAME.json, what `smartctl --json -x /dev/NAME` said; NAME.txt beside it is what it says
without `--json` (when there is none, the information section is made from the JSON); NAME.delay holds the
seconds to wait before answering, as a hung drive does. Replace the files atomically.

The exit status is the one in the JSON (`smartctl.exit_status`, bits as in smartctl(8)).
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

DRIVES = Path("/var/lib/lab-smart")
OPEN_FAILED = 2
"""Bit 1 of smartctl(8): device open failed."""

BANNER = (
    "smartctl 7.4 2023-08-01 r5530 [x86_64-linux] (lab)",
    "Copyright (C) 2002-23, Bruce Allen, Christian Franke, www.smartmontools.org",
)
"""Two lines and an empty one, as the real one has: pySMART skips them unseen."""

SECTION = "=== START OF INFORMATION SECTION ==="


def main() -> int:
    """Answer one call; return the exit status."""
    arguments = parse(sys.argv[1:])
    if arguments.scan or arguments.scan_open:
        return scan(arguments)
    path = DRIVES / f"{Path(arguments.device).name}.json"
    delay = path.with_suffix(".delay")
    if delay.exists():
        time.sleep(float(delay.read_text()))
    if not path.exists():
        return refuse(arguments)
    drive = json.loads(path.read_text())
    if arguments.test:
        say(f"Testing has begun.\nPlease wait 2 minutes for test to complete.\nTest: {arguments.test}")
        return 0
    if arguments.json:
        drive["smartctl"]["argv"] = ["smartctl", *sys.argv[1:]]
        say(json.dumps(drive, indent=None if "c" in arguments.json else 2))
        return int(drive["smartctl"].get("exit_status", 0))
    recorded = path.with_suffix(".txt")
    say(recorded.read_text() if recorded.exists() else describe(drive, health=not arguments.info))
    return int(drive["smartctl"].get("exit_status", 0)) if not arguments.info else 0


def parse(argv: list[str]) -> argparse.Namespace:
    """Parse the options that lifeboat and pySMART use; others that take no value are let through."""
    parser = argparse.ArgumentParser(prog="smartctl", add_help=False, allow_abbrev=False)
    parser.add_argument("--scan", action="store_true")
    parser.add_argument("--scan-open", action="store_true")
    parser.add_argument("-j", "--json", nargs="?", const="-", default="")
    parser.add_argument("-i", "--info", action="store_true")
    parser.add_argument("-d", "--device", dest="type", default="")
    parser.add_argument("-t", "--test", default="")
    for option in ("-n", "-l", "-T", "-q", "-s", "-f", "-r", "-v"):
        parser.add_argument(option, action="append")
    parser.add_argument("--nocheck")
    arguments, rest = parser.parse_known_args(argv)
    devices = [word for word in rest if not word.startswith("-")]
    arguments.device = devices[-1] if devices else ""
    return arguments


def drives() -> list[dict[str, Any]]:
    """Return every recorded drive, by name."""
    return [json.loads(path.read_text()) for path in sorted(DRIVES.glob("*.json"))]


def scan(arguments: argparse.Namespace) -> int:
    """List the drives, as text or as JSON."""
    found = [drive["device"] for drive in drives()]
    if arguments.json:
        about = {"version": [7, 4], "argv": ["smartctl", *sys.argv[1:]], "exit_status": 0}
        result = {"json_format_version": [1, 0], "smartctl": about, "devices": found}
        say(json.dumps(result))
    else:
        for device in found:
            say(f"{device['name']} -d {device['type']} # {device['info_name']}, {device['protocol']} device")
    return 0


def refuse(arguments: argparse.Namespace) -> int:
    """Say that there is no such drive, as smartctl does."""
    reason = f"Smartctl open device: {arguments.device} failed: No such device"
    if arguments.json:
        about = {
            "version": [7, 4],
            "argv": ["smartctl", *sys.argv[1:]],
            "messages": [{"string": reason, "severity": "error"}],
            "exit_status": OPEN_FAILED,
        }
        say(json.dumps({"json_format_version": [1, 0], "smartctl": about}))
    else:
        say(reason)
    return OPEN_FAILED


def describe(drive: dict[str, Any], *, health: bool) -> str:
    """Return the information section, and the health section, in smartctl's words for this protocol."""
    protocol = drive["device"]["protocol"]
    size = drive.get("user_capacity", {}).get("bytes", 0)
    capacity = f"{size:,} bytes [{size / 1e12:.2f} TB]"
    lines = [*BANNER, "", SECTION]
    if protocol == "NVMe":
        lines += [f"Model Number:                       {drive['model_name']}"]
        lines += [f"Serial Number:                      {drive['serial_number']}"]
        lines += [f"Firmware Version:                   {drive['firmware_version']}"]
        lines += [f"Total NVM Capacity:                 {capacity}"]
    elif protocol == "SCSI":
        lines += [
            f"Vendor:               {drive['scsi_vendor']}",
            f"Product:              {drive['scsi_product']}",
        ]
        lines += [f"User Capacity:        {capacity}", f"Serial number:        {drive['serial_number']}"]
    else:
        lines += [f"Device Model:     {drive['model_name']}", f"Serial Number:    {drive['serial_number']}"]
        lines += [f"Firmware Version: {drive['firmware_version']}", f"User Capacity:    {capacity}"]
        lines += [f"Rotation Rate:    {drive.get('rotation_rate', 0) or 'Solid State Device'} rpm"]
    lines += ["SMART support is: Available - device has SMART capability.", "SMART support is: Enabled", ""]
    return "\n".join([*lines, *(assessment(drive) if health else [])])


def assessment(drive: dict[str, Any]) -> list[str]:
    """Return the health section."""
    passed = drive.get("smart_status", {}).get("passed", True)
    if drive["device"]["protocol"] == "SCSI":
        words = f"SMART Health Status: {'OK' if passed else 'FAILURE PREDICTION THRESHOLD EXCEEDED'}"
    else:
        words = f"SMART overall-health self-assessment test result: {'PASSED' if passed else 'FAILED!'}"
    return ["=== START OF READ SMART DATA SECTION ===", words, ""]


def say(text: str) -> None:
    """Write to standard output."""
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
