"""Policy files and the verdicts that follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrator.health import Verdict
from watchdog.policy.evaluate import ReadingHistory, evaluate
from watchdog.policy.load import load_files, load_policy
from watchdog.policy.model import Policy, PolicyFile, Rule
from watchdog.signals.catalog import CATALOG
from watchdog.signals.model import Device, DeviceKind, Reading, SignalKind
from watchdog.toml_files import FileError, parse

SHIPPED = sorted((Path(__file__).parents[2] / "policies").glob("*.toml"))
DISK = Device(DeviceKind.DISK, "disk:1", "/dev/sda", {"type": "hdd"})
DAY = 86400.0


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


def shipped_rules() -> list[Rule]:
    """Return all rules we ship."""
    return list(load_files(SHIPPED).rules)


@pytest.mark.parametrize("one", shipped_rules(), ids=lambda one: one.id)
def test_a_shipped_rule_fires_on_its_fault_and_is_silent_on_health(one: Rule) -> None:
    count, step = one.readings + 1, max(300.0, one.over)
    bad: list[float | None] = [one.at_least if one.at_least is not None else 1.0] * count
    if one.grows_by is not None:
        bad, step = [float(one.grows_by) * index for index in range(count + 1)], 1.0
    policy = Policy(rules=(one,))
    assert judge(policy, readings(one.signal, bad, step)) == (one.verdict if one.mode == "act" else Verdict.HEALTHY)
    assert judge(policy, readings(one.signal, [0.0] * 20)) is Verdict.HEALTHY


def test_all_shipped_rules_together_are_silent_on_a_healthy_host() -> None:
    healthy = {"smart.temperature": 35.0, "smart.spare_margin": 90.0, "hwmon.temperature": 45.0}
    series = [r for name in CATALOG for r in readings(name, [healthy.get(name, 0.0)] * 5)]
    assert judge(load_files(SHIPPED), series) is Verdict.HEALTHY


def test_hysteresis_counts_successive_readings_and_their_span() -> None:
    policy = rule(at_least=1, readings=3, over="10m")
    assert judge(policy, readings("smart.pending_sectors", [1, 1])) is Verdict.HEALTHY
    assert judge(policy, readings("smart.pending_sectors", [1, 0, 1, 1])) is Verdict.HEALTHY
    assert judge(policy, readings("smart.pending_sectors", [1, 1, 1], step=60)) is Verdict.HEALTHY
    assert judge(policy, readings("smart.pending_sectors", [0, 1, 1, 1])) is Verdict.FAILING


def test_growth_is_seen_within_its_window_only_and_a_reset_is_none() -> None:
    policy = rule(signal="edac.ce_count", grows_by=10, within="1h")
    assert judge(policy, readings("edac.ce_count", [500] * 5)) is Verdict.HEALTHY
    assert judge(policy, readings("edac.ce_count", [500, 503, 511])) is Verdict.FAILING
    assert judge(policy, readings("edac.ce_count", [0, 9, 9, 18], step=3000)) is Verdict.HEALTHY
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
        ("signal = 'smart.pending_sectors'\ngrows_by = 1", "grows_by and within belong together"),
        ("signal = 'smart.pending_sectors'\ngrows_by = 1\nwithin = '3x'", "a duration is a number with"),
        ("signal = 'smart.pending_sectors'\nat_least = 1\nover = '1h'", "needs readings = 2 or more"),
        ("signal = 'smart.pending_sectors'\nat_leest = 1", "did you mean 'at_least'"),
    ],
)
def test_errors_name_what_is_wrong(text: str, expected: str) -> None:
    body = f"[[rule]]\nid = 'a'\nverdict = 'failing'\nwhy = 'x'\n{text}\n"
    with pytest.raises(FileError) as caught:
        parse(body, Path("my.toml"), PolicyFile)
    assert expected in str(caught.value)
    assert all(problem.file == Path("my.toml") and problem.line for problem in caught.value.problems)


def test_all_errors_come_at_once_with_their_lines() -> None:
    text = "[[rule]]\nid = 'a'\nverdict = 'failng'\nwhy = 'x'\nfoo = 1\n"
    with pytest.raises(FileError) as caught:
        parse(text, Path("my.toml"), PolicyFile)
    assert {(problem.line, problem.key) for problem in caught.value.problems} >= {
        (3, "rule.1.verdict"),
        (5, "rule.1.foo"),
    }


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


VALUES = st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False, width=32))
FLAGS = {name for name, item in CATALOG.items() if item.kind is SignalKind.FLAG}


@given(st.lists(st.tuples(st.sampled_from(sorted(CATALOG)), VALUES, st.floats(-1e9, 1e9)), max_size=60))
def test_no_sequence_of_readings_makes_the_evaluation_raise(items: list[tuple[str, float | None, float]]) -> None:
    series = [Reading(name, DISK, at, value) for name, value, at in items]
    policy = load_files(SHIPPED)
    first = evaluate(policy, ReadingHistory.of(series), 1e9)
    again = evaluate(policy, ReadingHistory.of(list(reversed(series))), 1e9)
    assert first.verdict in Verdict
    assert {state.rule.id for state in first.states} == {state.rule.id for state in again.states}
