"""Policy files and the verdicts that follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from migrator.health import Verdict
from watchdog.policy.evaluate import evaluate
from watchdog.policy.load import load_files, load_policy, timing_of
from watchdog.policy.model import Policy, PolicyFile, Rule
from watchdog.signals.model import Device, DeviceKind, Reading
from watchdog.signals.series import ReadingHistory
from watchdog.signals.settings import SignalSettings
from watchdog.toml_files import FileError, parse

SHIPPED = sorted((Path(__file__).parents[2] / "policies").glob("*.toml"))
DISK = Device(DeviceKind.DISK, "disk:1", "/dev/sda", {"type": "hdd"})
DAY = 86400.0
TIMING = timing_of(SignalSettings())


def readings(signal: str, values: Sequence[float | None], step: float = 300.0) -> list[Reading]:
    """Return a series that begins at time 0."""
    return [Reading(signal, DISK, index * step, value) for index, value in enumerate(values)]


def judge(policy: Policy, series: list[Reading]) -> Verdict:
    """Judge at the time of the last reading."""
    return evaluate(policy, ReadingHistory.of(series), series[-1].at if series else 0).verdict


def rule(**words: object) -> Policy:
    """Return a policy of one rule."""
    base = {"id": "r", "signal": "smart.pending_sectors", "verdict": "failing", "why": "because"}
    return Policy(rules=(Rule.model_validate({**base, **words}),))


def test_hysteresis_counts_successive_readings_and_their_span() -> None:
    policy = rule(at_least=1, readings=3, **{"for": "10m"})
    assert judge(policy, readings("smart.pending_sectors", [1, 1])) is Verdict.HEALTHY
    assert judge(policy, readings("smart.pending_sectors", [1, 0, 1, 1])) is Verdict.HEALTHY
    assert judge(policy, readings("smart.pending_sectors", [1, 1, 1], step=60)) is Verdict.HEALTHY
    assert judge(policy, readings("smart.pending_sectors", [0, 1, 1, 1])) is Verdict.FAILING


def test_growth_is_seen_within_its_window_only_and_a_reset_is_none() -> None:
    policy = rule(signal="edac.ce_count", grows_by=10, within="1h")
    assert judge(policy, readings("edac.ce_count", [500] * 5)) is Verdict.HEALTHY
    assert judge(policy, readings("edac.ce_count", [500, 503, 511])) is Verdict.FAILING
    assert judge(policy, readings("edac.ce_count", [0, 9, 9, 18], step=3400)) is Verdict.HEALTHY
    assert judge(policy, readings("edac.ce_count", [500, 3, 4])) is Verdict.HEALTHY


def test_unreadable_is_blindness_and_neither_health_nor_failure() -> None:
    policy = rule(signal="smart.health_failed", is_set=True, readings=2)
    series = readings("smart.health_failed", [1, None, 1])
    assert judge(policy, series) is Verdict.FAILING
    found = evaluate(policy, ReadingHistory.of(readings("smart.health_failed", [0, None])), 1000)
    assert [item.signal for item in found.blind] == ["smart.health_failed"]
    assert "cannot be read" in found.reason


def test_where_limits_a_rule_to_some_devices() -> None:
    series = readings("smart.pending_sectors", [5])
    assert judge(rule(at_least=1, where={"type": "hdd"}), series) is Verdict.FAILING
    assert judge(rule(at_least=1, where={"type": "ssd"}), series) is Verdict.HEALTHY


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("signal = 'smart.pendng_sectors'\nat_least = 1", "did you mean 'smart.pending_sectors'"),
        ("signal = 'smart.pending_sectors'", "needs exactly one of"),
        ("signal = 'smart.pending_sectors'\nat_least = 1\nat_most = 3", "has at_least, at_most"),
        ("signal = 'smart.health_failed'\nat_least = 1", "use is_set"),
        ("signal = 'smart.pending_sectors'\nis_set = true", "use at_least, at_most"),
        ("signal = 'smart.pending_sectors'\ngrows_by = 1", "grows_by and within belong together"),
        ("signal = 'smart.pending_sectors'\ngrows_by = 1\nwithin = '3x'", "a duration is a number with"),
        ("signal = 'smart.pending_sectors'\nat_least = 1\nwithin = '3d'", "does nothing without"),
        ("signal = 'smart.pending_sectors'\nat_leest = 1", "did you mean 'at_least'"),
        ("signal = 'smart.temperature'\nat_least = '60 F'", "'F' is no unit for that; allowed: C, °C, or none"),
        ("signal = 'smart.pending_sectors'\nat_least = '1h'", "is in count, and 'h' is no unit"),
        ("signal = 'smart.temperature'\nat_least = 60\nclear_at = 65", "must not be above at_least = 60"),
        ("signal = 'edac.ce_count'\ngrows_by = 6\nwithin = '1h'\nclear_at = 5", "is for at_least and at_most only"),
        ("signal = 'edac.ce_count'\nblind_for = '1h'\nfor = '1h'", "blind_for is itself a time"),
        ("signal = 'edac.ce_count'\nat_least = 1\ndevices = 'some'", "allowed: a whole number, 'all'"),
        ("signal = 'edac.ce_count'\nat_least = 1\ndevices = 0", "must be 1 or more"),
        ("signal = 'edac.ce_count'\nat_least = 1\nneeds = 2", "needs several conditions"),
        ("needs = 3\n[[rule.when]]\nsignal = 'edac.ce_count'\nat_least = 1", "there are 1 conditions"),
        ("readings = 2\n[[rule.when]]\nsignal = 'edac.ce_count'\nat_least = 1", "use for"),
        ("signal = 'edac.ce_count'\n[[rule.when]]\nsignal = 'edac.ce_count'\nat_least = 1", "belongs into one of"),
        ("[[rule.when]]\nsignal = 'edac.ce_cout'\nat_least = 1", "did you mean 'edac.ce_count'"),
        ("signal = 'edac.ce_count'\nat_least = 1\nfor = '2000d'\n", "longer than readings are kept"),
        ("signal = 'edac.ce_count'\ngrows_by = 1\nwithin = '100d'", "signals.keep_days is 90"),
        ("signal = 'edac.ce_count'\ngrows_by = 1\nwithin = '90s'", "edac_poll_s is 60 s, so at least 2m"),
        ("signal = 'smart.spare_margin'\nwill_reach = 0\nwithin='1d'\nahead='30d'", "at most 10d"),
    ],
)
def test_errors_name_what_is_wrong(text: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text(f"[[rule]]\nid = 'a'\nverdict = 'failing'\nwhy = 'x'\n{text}\n")
    with pytest.raises(FileError) as caught:
        load_files([path], TIMING)
    assert expected in str(caught.value)
    assert all(problem.file == path and problem.line for problem in caught.value.problems)


def test_all_errors_come_at_once_with_their_lines() -> None:
    text = "[[rule]]\nid = 'a'\nverdict = 'failng'\nwhy = 'x'\nfoo = 1\n"
    with pytest.raises(FileError) as caught:
        parse(text, Path("my.toml"), PolicyFile)
    assert {(problem.line, problem.key) for problem in caught.value.problems} >= {
        (3, "rule.1.verdict"),
        (5, "rule.1.foo"),
        (1, "rule.1.signal"),
        (1, "rule.1"),
    }


def test_a_key_is_looked_for_in_its_own_table_only() -> None:
    good = "signal = 'edac.ce_count'\ngrows_by = 1\nwithin = '1h'\n"
    head = "[[rule]]\nid = '{}'\nverdict = 'failing'\nwhy = 'x'\n"
    text = head.format("a") + good.replace("within = '1h'\n", "") + head.format("b") + good
    with pytest.raises(FileError) as caught:
        parse(text, Path("my.toml"), PolicyFile)
    assert [(problem.line, problem.key) for problem in caught.value.problems] == [(6, "rule.1.grows_by")]


def test_local_files_override_and_mask_shipped_ones(tmp_path: Path) -> None:
    shipped, local = tmp_path / "shipped", tmp_path / "local"
    text = "[[rule]]\nid='{}'\nsignal='smart.pending_sectors'\nat_least=1\nverdict='failing'\nwhy='x'\n"
    for directory in (shipped, local):
        directory.mkdir()
    (shipped / "a.toml").write_text(text.format("shipped-a"))
    (shipped / "b.toml").write_text(text.format("shipped-b"))
    (local / "a.toml").write_text(text.format("local-a"))
    (local / "b.toml").symlink_to("/dev/null")
    assert [one.id for one in load_policy(shipped, local).rules] == ["local-a"]
    (local / "c.toml").write_text(text.format("local-a"))
    with pytest.raises(FileError, match="ids must be unique"):
        load_policy(shipped, local)
