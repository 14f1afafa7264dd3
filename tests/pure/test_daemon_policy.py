"""What an admin does with rules while the daemon runs: silences, reloads, the outcome of evacuations."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.pure.test_daemon import DISK, RULE, FakeEngine, House, command, served
from watchdog.alerts.model import Kind
from watchdog.cli import client
from watchdog.cli.main import main
from watchdog.signals.model import Device, DeviceKind, Reading
from watchdog.signals.places import StorageFacts
from watchdog.state import HostState

__all__ = ["served"]

ALERTING = """
[[rule]]
id = "disk-cable"
signal = "smart.crc_errors"
at_least = 10
mode = "alert"
verdict = "suspect"
why = "check the cable"
"""


@pytest.fixture(autouse=True)
def _answered(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "served" in request.fixturenames:
        house: House = request.getfixturevalue("served")
        real, real_lines = client.ask, client.lines
        socket_path = house.directory / "admin.sock"
        monkeypatch.setattr("watchdog.cli.offline.lines", lambda path: real_lines(path, socket_path=socket_path))
        monkeypatch.setattr(
            "watchdog.cli.quiet.ask", lambda *words: real(*words, socket_path=house.directory / "admin.sock")
        )


def read_crc(house: House, value: float) -> None:
    """Let the disk count damaged transfers."""
    house.daemon.readings.take([Reading("smart.crc_errors", DISK, time.time(), value)])


def test_a_rule_that_only_alerts_is_told_once_and_when_it_clears(tmp_path: Path) -> None:
    house = House(tmp_path, FakeEngine(web="beta"))
    (tmp_path / "local/rules.toml").write_text(RULE + ALERTING)
    assert house.daemon.reload() == ""
    read_crc(house, 20.0)
    assert house.tick(3) is HostState.HEALTHY
    assert house.kinds() == [Kind.RULE]
    assert house.alerts()[0].text == f"{house.daemon.host}: /dev/sda: check the cable " + (
        "(smart.crc_errors is 20, limit 10) [disk-cable]"
    )
    house.start()
    house.tick()
    assert house.kinds() == [Kind.RULE], "a restart repeats nothing"
    read_crc(house, 0.0)
    house.tick(2)
    assert house.kinds() == [Kind.RULE, Kind.RULE_CLEARED]


def test_a_second_rule_is_told_though_the_verdict_stays(tmp_path: Path) -> None:
    house = House(tmp_path, FakeEngine(web="beta"), automatic=False)
    (tmp_path / "local/rules.toml").write_text(RULE + ALERTING.replace('mode = "alert"', ""))
    house.daemon.reload()
    house.read(1.0)
    house.tick(2)
    read_crc(house, 20.0)
    house.tick(2)
    assert house.kinds() == [Kind.VERDICT, Kind.RULE]


def test_a_silence_keeps_the_host_from_acting_until_it_ends(
    served: House, capsys: pytest.CaptureFixture[str]
) -> None:
    served.read(1.0)
    status, found = command(capsys, "silence", "/dev/sda", "--for", "2h", "--why", "it is being replaced")
    assert (status, found["what"]) == (0, "/dev/sda")
    assert served.tick(3) is HostState.HEALTHY
    assert served.alerts() == []
    assert served.engine is not None
    assert served.engine.moved == []
    found = command(capsys, "status")[1]
    assert found["silences"][0]["why"] == "it is being replaced"
    assert "silenced: it is being replaced" in found["fired"][0]
    assert main(["status"]) == 0
    assert "/dev/sda silenced for another 120 min: it is being replaced" in capsys.readouterr().out
    again = served.start()
    assert [item.what for item in again.judgement.silences()] == ["/dev/sda"]
    again.judgement.unsilence("/dev/sda")
    assert served.tick(2) is not HostState.HEALTHY


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["silence", "disk-helth-failed", "--for", "2h", "--why", "x"], "did you mean 'disk-health-failed'"),
        (["unsilence", "disk-health-failed"], "is not silenced"),
        (["forget", "/dev/sdz"], "did you mean '/dev/sda'"),
        (["verdict", "nosuch", "confirmed"], "there was no evacuation 'nosuch'"),
        (["verdict", "nosuch"], "say confirmed, false-alarm or missed"),
    ],
)
def test_what_there_is_not_is_an_error(
    served: House, capsys: pytest.CaptureFixture[str], argv: list[str], words: str
) -> None:
    served.read(0.0)
    assert main(argv) == 2
    assert words in capsys.readouterr().err


def test_a_replaced_disk_is_forgotten(served: House, capsys: pytest.CaptureFixture[str]) -> None:
    served.read(1.0)
    served.tick()
    assert command(capsys, "forget", "/dev/sda")[1]["identity"] == "disk:1"
    served.tick(2)
    assert command(capsys, "policy", "explain")[1] == []
    assert served.start().readings.history().series == {}


def test_a_forgotten_disk_is_no_news_until_it_is_seen_again(tmp_path: Path) -> None:
    house = House(tmp_path, FakeEngine(web="beta"))
    house.read(1.0)
    house.daemon.judgement.forget("/dev/sda")
    absent = [Reading("disk.missing", DISK, time.time(), 1.0), Reading("smart.crc_errors", DISK, time.time(), None)]
    house.daemon.readings.take(absent)
    assert house.daemon.readings.history().series == {}
    house.start()
    house.daemon.readings.take(absent)
    assert house.daemon.readings.history().series == {}, "a restart remembers what was forgotten"
    house.read(0.0)
    house.daemon.readings.take(absent)
    assert len(house.daemon.readings.history().series) == 3


def on_disks(house: House, layers: str = "/data/containers", **volumes: str) -> None:
    """Let the engine run containers with a volume each: /srv lies on the disk that speaks, /data on another."""
    assert house.engine is not None
    house.engine.volumes = volumes
    mounts = {"/": frozenset({"sdx"}), "/srv": frozenset({"sda"}), "/data": frozenset({"sdb"})}
    devices = {"sda": frozenset({"sda"}), "sdb": frozenset({"sdb"})}
    house.storage = StorageFacts(mounts=mounts, swap=frozenset(), devices=devices)
    house.layers = layers
    storage_rule(house)


def storage_rule(house: House, extra: str = "") -> None:
    """Let the rule be about storage only."""
    rule = RULE.replace('verdict = "failing"', 'verdict = "failing"\naffects = "storage"\nmode = "act"')
    (house.directory / "local/rules.toml").write_text(rule + extra)
    assert house.daemon.reload() == ""


def test_a_failing_data_disk_takes_only_what_lies_on_it(tmp_path: Path) -> None:
    house = House(tmp_path, FakeEngine(web="beta", db="beta"))
    on_disks(house, web="/srv/web", db="/data/db")
    house.read(1.0)
    assert house.tick(3) is HostState.EVACUATED
    assert house.engine is not None
    assert house.engine.moved == ["web"]
    started, ended = (next(e for e in house.alerts() if e.kind is kind) for kind in EVACUATION_KINDS)
    assert "what lies on /dev/sda leaves" in started.text
    assert "1 of 1 containers have a target" in started.text
    assert "1 stay" in started.text
    assert "still here" not in ended.text
    house.tick(3)
    assert house.engine.moved == ["web"], "what stays is not asked again and again"


def test_a_suspect_data_disk_copies_ahead_only_what_lies_on_it(tmp_path: Path) -> None:
    house = House(tmp_path, FakeEngine(web="beta", db="beta"), warm_up_s=3600)
    on_disks(house, web="/srv/web", db="/data/db")
    rule = RULE.replace('verdict = "failing"', 'verdict = "suspect"\naffects = "storage"\nmode = "act"')
    (house.directory / "local/rules.toml").write_text(rule)
    assert house.daemon.reload() == ""
    house.read(1.0)
    assert house.tick() is HostState.SUSPECT
    assert house.engine is not None
    assert house.engine.staged == {"web": "beta"}


EVACUATION_KINDS = (Kind.EVACUATION_STARTED, Kind.EVACUATION_ENDED)
WIDER = """
[[rule]]
id = "disk-missing"
signal = "disk.missing"
is_set = true
verdict = "failing"
affects = "storage"
why = "it is gone"
"""


@pytest.mark.parametrize("device", ["/dev/sdb", "mc0/dimm0"])
def test_when_more_is_failing_more_leaves_at_once(tmp_path: Path, device: str) -> None:
    house = House(tmp_path, FakeEngine(web="beta", db="beta"), again_s=3600)
    on_disks(house, web="/srv/web", db="/data/db")
    storage_rule(house, WIDER)
    house.read(1.0)
    house.tick(3)
    assert house.engine is not None
    assert house.engine.moved == ["web"]
    second = Device(DeviceKind.DISK if device.startswith("/") else DeviceKind.DIMM, device, device)
    house.daemon.readings.take([Reading("disk.missing", second, time.time(), 1.0)])
    house.tick(2)
    assert house.engine.moved == ["web", "db"]
    assert len(house.daemon.ledger.cases) == 2


def test_nothing_leaves_when_nothing_lies_on_it_and_that_is_told(tmp_path: Path) -> None:
    house = House(tmp_path, FakeEngine(db="beta"))
    on_disks(house, db="/data/db")
    house.read(1.0)
    assert house.tick(4) is HostState.EVACUATED
    assert house.engine is not None
    assert house.engine.moved == []
    assert [event.text for event in house.alerts() if event.kind is Kind.EVACUATION_ENDED] == [
        f"no container of {house.daemon.host} lies on /dev/sda: all stay"
    ]


def test_the_plan_is_what_the_host_would_do_and_an_order_is_for_everything(
    served: House, capsys: pytest.CaptureFixture[str]
) -> None:
    on_disks(served, web="/srv/web", pinned="/data/db")
    served.daemon.flags.change(paused=True)
    served.read(1.0)
    served.tick()
    web, pinned = command(capsys, "plan")[1]["migrations"]
    assert (web["container"], web["target"], web["kept"]) == ("web", "beta", False)
    assert (pinned["container"], pinned["target"], pinned["kept"]) == ("pinned", None, True)
    assert pinned["reason"] == "it stays: its storage does not lie on /dev/sda"
    everything = command(capsys, "evacuate", "--dry-run")[1]["migrations"]
    assert [(item["container"], item["kept"]) for item in everything] == [("web", False), ("pinned", False)]


def test_what_a_failing_data_disk_takes_with_it_is_told(served: House, capsys: pytest.CaptureFixture[str]) -> None:
    on_disks(served, web="/srv/web", pinned="/data/db")
    served.daemon.flags.change(paused=True)
    served.read(1.0)
    served.tick()
    found = command(capsys, "status")[1]
    assert (found["affected"], found["affected_containers"]) == (["/dev/sda"], ["web"])
    assert command(capsys, "signals")[1][0]["affects"] == ["web"]
    assert served.engine is not None
    assert main(["status"]) == 0
    assert "affected: containers web, by the loss of /dev/sda" in capsys.readouterr().out
    served.layers = "/srv/containers"
    assert command(capsys, "status")[1]["affected_containers"] == ["pinned", "web"], "all layers lie there"


def test_this_hosts_own_past_is_recorded_and_replayed(served: House, capsys: pytest.CaptureFixture[str]) -> None:
    served.read(0.0)
    served.read(1.0)
    assert main(["policy", "record"]) == 0
    trace = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["value"] for line in trace] == [0.0, 1.0]
    status, told = command(capsys, "policy", "replay", "--policy", str(served.directory / "local/rules.toml"))
    assert (status, [alarm["rule"] for alarm in told["alarms"]]) == (0, ["disk-health-failed"])
    assert told["records"][0]["false_alarms"] == 1


def test_reload_says_whether_the_policies_are_good(served: House, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(capsys, "policy", "reload") == (0, {"rules": 1})
    (served.directory / "local/rules.toml").write_text("[[rule]]\nid = 'x'")
    assert main(["policy", "reload"]) == 2
    assert "the last good policies stay in force" in capsys.readouterr().err
    assert main(["status"]) == 0
    assert "the policies on disk are NOT in force" in capsys.readouterr().out


def test_explain_says_why_a_rule_has_not_fired(served: House, capsys: pytest.CaptureFixture[str]) -> None:
    (served.directory / "local/rules.toml").write_text(RULE + ALERTING)
    served.daemon.reload()
    served.read(0.0)
    read_crc(served, 4.0)
    served.tick()
    (found,) = command(capsys, "policy", "explain", "disk-cable")[1]
    assert (found["value"], found["limit"], found["distance"]) == (4.0, 10.0, 6.0)
    assert found["why_not"] == "is 4, limit 10"
    assert main(["policy", "explain"]) == 0
    assert "is not set" in capsys.readouterr().out


def test_rules_are_scored_by_what_evacuations_really_were_for(
    served: House, capsys: pytest.CaptureFixture[str]
) -> None:
    served.read(1.0)
    served.tick(2)
    (case,) = command(capsys, "verdict")[1]
    assert (case["rules"], case["devices"], case["truth"]) == (["disk-health-failed"], ["/dev/sda"], None)
    assert command(capsys, "policy", "score")[1][0]["precision"] is None
    assert command(capsys, "verdict", case["id"], "confirmed", "--note", "it died a day later")[0] == 0
    assert command(capsys, "verdict", "/dev/sdc", "missed")[0] == 0
    everything, one = command(capsys, "policy", "score")[1]
    assert (everything["precision"], everything["recall"]) == (1.0, 0.5)
    assert one["rule"] == "disk-health-failed"
    command(capsys, "verdict", case["id"], "false-alarm")
    assert command(capsys, "policy", "score")[1][0]["precision"] == 0.0
    assert len(served.start().ledger.cases) == 2
    for verb in (["verdict"], ["policy", "score"]):
        assert main(verb) == 0
        assert capsys.readouterr().out
