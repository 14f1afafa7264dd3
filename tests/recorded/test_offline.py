"""`lifeboat policy try` and `replay`: recorded output of devices, judged by the decoders of the daemon."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.recorded.signal_data import DATA, answer
from watchdog.cli.main import main
from watchdog.offline.recorded import Recording, recognised
from watchdog.offline.smart_text import answer_of
from watchdog.offline.trial import Finding, trials
from watchdog.policy.load import load_files
from watchdog.signals.kernel_patterns import SHIPPED, load_patterns
from watchdog.signals.smart_answer import device_of
from watchdog.signals.smart_decode import decode

ROOT = Path(__file__).parents[2]
RULES = load_files(sorted((ROOT / "policies").glob("*.toml")))
PATTERNS = load_patterns(SHIPPED, ROOT / "none")
SHIPPED_RULES = [word for path in sorted((ROOT / "policies").glob("*.toml")) for word in ("--policy", str(path))]
DRIVES = sorted(path.name for path in (DATA / "smart").iterdir())
NOW = 1.7e9

TEXT = """\
smartctl 7.3 2022-02-28 r5338 [x86_64-linux-6.1.0] (local build)

=== START OF INFORMATION SECTION ===
Device Model:     ACME 4000
Serial Number:    S123
Rotation Rate:    7200 rpm
SMART support is: Available - device has SMART capability.
SMART support is: Enabled

=== START OF READ SMART DATA SECTION ===
SMART overall-health self-assessment test result: {health}

Vendor Specific SMART Attributes with Thresholds:
ID# ATTRIBUTE_NAME          FLAGS    VALUE WORST THRESH FAIL RAW_VALUE
  5 Reallocated_Sector_Ct   PO--CK   100   100   010    -    {reallocated}
  9 Power_On_Hours          -O--CK   091   091   000    -    {hours}
188 Command_Timeout         -O--CK   100   099   000    -    1 2 3
194 Temperature_Celsius     -O---K   064   048   000    -    36 (Min/Max 17/52)
197 Current_Pending_Sector  -O--C-   100   100   000    -    {pending}

SMART Extended Self-test Log Version: 1 (1 sectors)
Num  Test_Description    Status                  Remaining  LifeTime(hours)  LBA_of_first_error
# 1  Extended offline    Completed: read failure       90%     50126         123456

Device Statistics (GP Log 0x04)
Page  Offset Size        Value Flags Description
0x04  0x008  4               7  ---  Number of Reported Uncorrectable Errors
"""


def smart_text(health: str = "PASSED", reallocated: int = 0, pending: int = 0, hours: int = 1000) -> str:
    return TEXT.format(health=health, reallocated=reallocated, pending=pending, hours=hours)


def found_in(text: str) -> tuple[Recording, set[tuple[str, Finding]]]:
    """Return what a text is, and what is found on each device."""
    recording = recognised("file", text, PATTERNS, NOW)
    return recording, {(t.device.name, t.finding) for t in trials(RULES, list(recording.readings), NOW)}


def tried(capsys: pytest.CaptureFixture[str], *files: object, policies: bool = True) -> tuple[int, Any]:
    """Run `lifeboat policy try --json`; return exit status and answer."""
    words = SHIPPED_RULES if policies else []
    status = main(["policy", "try", "--json", *words, *map(str, files)])
    return status, json.loads(capsys.readouterr().out)


def test_text_of_smartctl_is_read_as_its_json_is() -> None:
    said = answer_of(smart_text(reallocated=8, pending=2))
    told = {item.signal: item.value for item in decode(said, device_of(said, "x"), NOW)}
    assert told["smart.reallocated_sectors"] == 8
    assert told["smart.pending_sectors"] == 2
    assert told["smart.command_timeouts"] == 3  # the lowest of three words
    assert told["smart.temperature"] == 36
    assert told["smart.selftest_failed"] == 1
    assert told["smart.reported_uncorrectable"] == 7
    assert told["smart.health_failed"] == 0
    assert said["power_on_time"] == {"hours": 1000}
    failed = answer_of(smart_text("FAILED!"))
    assert {item.signal: item.value for item in decode(failed, device_of(failed, "x"), NOW)}["smart.health_failed"]


@pytest.mark.parametrize("name", DRIVES)
def test_a_recorded_drive_is_judged_and_what_it_hides_is_unknown(name: str) -> None:
    recording, found = found_in(json.dumps(answer(name)))
    assert recording.kind == "smartctl's JSON"
    ((_, finding),) = found
    health = next(item for item in recording.readings if item.signal == "smart.health_failed")
    if not health.readable and not any(item.value for item in recording.readings):
        assert finding is Finding.UNKNOWN
    if health.value:
        assert finding is Finding.FAILING


@pytest.mark.parametrize(
    ("text", "kind", "found"),
    [
        (
            "[   48.1] nvme nvme0: controller is down; will reset: CSTS=0xffffffff, PCI_STATUS=0x10\n"
            "[   48.2] nvme nvme0: Disabling device after reset failure: -19\n",
            "a kernel log",
            ("/dev/nvme0", Finding.FAILING),
        ),
        ("[    2.1] EDAC MC0: Giving out device to module amd64_edac\n", "a kernel log", None),
        (
            "/sys/devices/system/edac/mc/mc0/dimm0/dimm_ce_count:0\n/sys/devices/system/edac/mc/mc0/dimm0/dimm_ue_count:2\n"
            "/sys/devices/system/edac/mc/mc0/dimm0/dimm_label:A1\n",
            "a listing of sysfs",
            ("A1", Finding.SUSPECT),
        ),
        (
            "CPU 0 BANK 4\nSTATUS 0xb200000000070f0f\nPROCESSOR 0:0x106a0\n",
            "machine-check records",
            ("socket 0", Finding.FAILING),
        ),
        ("CPU 0 BANK 4\nSTATUS 1234\n", "machine-check records", ("socket 0", Finding.UNKNOWN)),
        (
            "   1 | 02/01/2024 | 17:14:54 | Memory #0x01 | Uncorrectable ECC | Asserted\n",
            "ipmitool's output",
            ("BMC log: Memory #0x01", Finding.FAILING),
        ),
        ("hello\nworld\n", "not recognised", None),
        ('{"a": 1}', "not recognised", None),
        ("{", "not recognised", None),
        ("", "not recognised", None),
    ],
)
def test_each_kind_of_output_is_known(text: str, kind: str, found: tuple[str, Finding] | None) -> None:
    recording, judged = found_in(text)
    assert recording.kind == kind
    assert bool(recording.problem) == (kind == "not recognised")
    if found is not None:
        assert found in judged


def test_a_part_of_sysfs_is_hung_in_at_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chip = tmp_path / "hwmon7"
    chip.mkdir()
    for name, value in {"name": "coretemp", "temp1_input": "104000", "temp1_crit": "100000"}.items():
        (chip / name).write_text(value)
    status, told = tried(capsys, chip)
    assert (status, told["verdict"]) == (8, "failing")
    assert told["devices"][0]["fired"][0]["rule"] == "temperature-critical"
    assert told["devices"][0]["fired"][0]["only_if"] == "if it stays so for 3 readings"
    empty = tmp_path / "empty"
    empty.mkdir()
    assert tried(capsys, empty)[0] == 9


def test_several_files_of_a_drive_are_its_history(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / f"{number}.txt" for number in range(3)]
    for number, path in enumerate(files):
        path.write_text(smart_text(reallocated=number * 20, hours=1000 + number * 24))
    status, told = tried(capsys, *files)
    rules = {item["rule"] for item in told["devices"][0]["fired"]}
    assert status == 8
    assert "disk-reallocation-growing" in rules
    for path in files[1:]:
        path.write_text(smart_text(reallocated=0, hours=2000))
    assert "disk-reallocation-growing" not in {i["rule"] for i in tried(capsys, *files)[1]["devices"][0]["fired"]}


def test_standard_input_and_people(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(smart_text("FAILED!").encode()))
    monkeypatch.setattr("sys.stdin", stdin)
    assert main(["policy", "try", *SHIPPED_RULES, "-"]) == 8
    said = capsys.readouterr().out
    assert "-: 9 signals, read as smartctl's text" in said
    assert "ACME 4000 S123: failing: ACME 4000 S123: the drive itself says" in said
    assert "the drive itself says that it is failing" in said


def test_a_file_that_cannot_be_judged_is_not_healthy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "good").write_text(json.dumps(answer("nvme-healthy")))
    (tmp_path / "other").write_text("whatever")
    assert tried(capsys, tmp_path / "good")[0] == 0
    assert tried(capsys, tmp_path / "good", tmp_path / "other")[0] == 9
    assert main(["policy", "try", *SHIPPED_RULES, str(tmp_path / "none")]) == 2
    (tmp_path / "empty.toml").write_text("")
    assert main(["policy", "try", "--policy", str(tmp_path / "empty.toml"), str(tmp_path / "good")]) == 2
    assert "there are no rules to judge by" in capsys.readouterr().err


def test_the_sample_is_good_with_every_line_taken_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "new"]) == 0
    sample = capsys.readouterr().out
    path = tmp_path / "new.toml"
    path.write_text(sample)
    assert main(["policy", "check", str(path)]) == 0
    head, _, rest = sample.partition("# Other conditions")
    tables = rest[rest.index("# [[rule]]") :]
    path.write_text(head + "\n".join(line.removeprefix("# ").removeprefix("#") for line in tables.splitlines()))
    assert main(["policy", "check", str(path)]) == 0
    assert len(load_files([path]).rules) == 3


def backblaze(tmp_path: Path) -> Path:
    """Return a file with two drives over 40 days: one grows defects and fails, one only has old ones."""
    lines = [
        "date,serial_number,model,capacity_bytes,failure,smart_3_raw,smart_5_normalized,smart_5_raw,smart_197_raw"
    ]
    for day in range(40):
        date = (datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=day)).strftime("%Y-%m-%d")
        lines.append(f"{date},OLD,ACME,1,0,0,100,48,0")
        if day < 30:
            lines.append(f"{date},DYING,ACME,1,{int(day == 29)},0,100,{max(day - 9, 0) * 5},0")
    path = tmp_path / "daily.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_replay_tells_lead_and_false_alarms_of_published_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = backblaze(tmp_path)
    assert main(["policy", "replay", "--json", *SHIPPED_RULES, str(path)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["devices"], told["failures"]) == (2, 1)
    assert told["device_years"] == pytest.approx((39 + 29) / 365.25)
    rule = next(item for item in told["records"] if item["name"] == "disk-reallocation-growing")
    assert (rule["foretold"], rule["false_alarms"]) == (1, 0)
    assert (
        rule["median_lead_s"] == 19 * 86400
    )  # 10 sectors in 7 days on the eleventh day, failed at the end of the 29th
    assert {item["identity"] for item in told["alarms"] if item["verdict"] == "failing"} == {"disk:DYING"}
    assert main(["policy", "replay", "--alarms", *SHIPPED_RULES, str(path)]) == 0
    assert "before it failed" in capsys.readouterr().out


def test_replay_counts_false_alarms_per_host_year(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = tmp_path / "eager.toml"
    policy.write_text(
        "[[rule]]\nid = 'eager'\nsignal = 'smart.reallocated_sectors'\nat_least = 1\nverdict = 'failing'\n"
        "why = 'x'\n"
    )
    words = ["policy", "replay", "--json", "--policy", str(policy), "--disks-per-host", "12"]
    assert main([*words, str(backblaze(tmp_path))]) == 0
    told = json.loads(capsys.readouterr().out)
    rule = next(item for item in told["records"] if item["name"] == "eager")
    assert (rule["foretold"], rule["false_alarms"]) == (1, 1)
    assert rule["false_per_host_year"] == pytest.approx(12 / told["device_years"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("date,serial_number,model\n2024-01-01,a,b\n", "has no column 'failure'"),
        ("date,serial_number,model,failure\nyesterday,a,b,0\n", "daily:2: time data 'yesterday'"),
        ("date,serial_number,model,failure,smart_5_raw\n2024-01-01,a,b,0,many\n", "daily:2: could not convert"),
        ('{"signal": "smart.pendng_sectors", "device": "a", "at": 1, "value": 1}\n', "did you mean"),
        ('{"signal": "smart.pending_sectors", "device": "a", "value": 1}\n', "daily:1: lacks 'at'"),
        ("nonsense\n", "daily:1:"),
    ],
)
def test_what_cannot_be_replayed_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, words: str
) -> None:
    path = tmp_path / "daily"
    path.write_text(text)
    assert main(["policy", "replay", *SHIPPED_RULES, str(path)]) == 2
    assert words in capsys.readouterr().err


def test_a_trace_is_replayed_and_knows_failures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        {"signal": "smart.pending_sectors", "device": "/dev/sda", "at": day * 86400.0, "value": float(day * 30)}
        for day in range(10)
    ]
    path = tmp_path / "trace.jsonl"
    path.write_text("\n".join(map(json.dumps, [*lines, {"device": "/dev/sda", "failed_at": 12 * 86400.0}])))
    assert main(["policy", "replay", "--json", *SHIPPED_RULES, str(path)]) == 0
    told = json.loads(capsys.readouterr().out)
    growing = next(item for item in told["records"] if item["name"] == "disk-pending-growing")
    assert (growing["foretold"], growing["failures"]) == (1, 1)
    assert growing["median_lead_s"] == 10 * 86400
