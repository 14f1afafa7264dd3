"""Whatever is read, whatever the clock does, whatever stands in a file: nothing raises, nothing is half-read."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migrator.health import Verdict
from watchdog.policy.evaluate import Memory, evaluate
from watchdog.policy.load import load_files, timing_of
from watchdog.policy.model import Policy, PolicyFile, Rule
from watchdog.signals.catalog import CATALOG
from watchdog.signals.model import Device, DeviceKind, Reading, SignalKind
from watchdog.signals.series import ReadingHistory, Series, append
from watchdog.signals.settings import SignalSettings
from watchdog.signals.store import ReadingStore
from watchdog.toml_files import FileError, parse

SHIPPED = load_files(sorted((Path(__file__).parents[2] / "policies").glob("*.toml")))
DEVICES = [Device(DeviceKind.DISK, f"d:{kind}", f"/dev/{kind}", {"type": kind}) for kind in ("hdd", "ssd", "nvme")]
SIGNALS = sorted(CATALOG)

values = st.one_of(
    st.none(), st.floats(allow_nan=False, allow_infinity=False, width=32), st.integers(0, 3).map(float)
)
steps = st.one_of(st.floats(-1e9, 1e9), st.floats(0, 600), st.just(300.0))
durations = st.sampled_from(["30s", "10m", "1h", "24h", "7d", "30d"])


def condition_of(signal: str) -> st.SearchStrategy[dict[str, Any]]:
    """Return a condition that fits a signal."""
    base: dict[str, Any] = {"signal": signal}
    limits = st.integers(-5, 5)
    if CATALOG[signal].kind is SignalKind.FLAG:
        own = st.one_of(st.booleans().map(lambda value: {"is_set": value}))
    else:
        own = st.one_of(
            limits.map(lambda value: {"at_least": value}),
            limits.map(lambda value: {"at_most": value}),
            st.builds(lambda value, within: {"grows_by": value, "within": within}, st.integers(1, 5), durations),
            st.builds(
                lambda value, per, within: {"rate_at_least": value, "per": per, "within": within},
                st.integers(1, 5),
                durations,
                durations,
            ),
            st.builds(
                lambda value, within: {"will_reach": value, "within": within, "ahead": within}, limits, durations
            ),
        )
    other = st.one_of(
        st.builds(lambda c, within: {"changes": c, "within": within}, st.sampled_from(["any", "up"]), durations),
        durations.map(lambda value: {"blind_for": value}),
    )
    return st.one_of(own, other).map(lambda words: {**base, **words})


conditions = st.sampled_from(SIGNALS[:40]).flatmap(condition_of)
rules = st.builds(
    lambda when, several, needs, on, common: {
        **({"when": when, "needs": needs, "on": on} if several else when[0]),
        **{key: value for key, value in common.items() if not (several and "readings" in key)},
    },
    st.lists(conditions, min_size=1, max_size=3),
    st.booleans(),
    st.sampled_from(["all", "any", 1]),
    st.sampled_from(["device", "host"]),
    st.fixed_dictionaries(
        {"readings": st.integers(1, 4), "clear_readings": st.integers(1, 4), "clear_for": durations},
        optional={"devices": st.sampled_from([1, "all"])},
    ),
)


@st.composite
def histories(draw: st.DrawFn) -> list[Reading]:
    """Return readings of some signals of some devices, with a clock that jumps."""
    signals = draw(st.lists(st.sampled_from(SIGNALS[:40]), min_size=1, max_size=4))
    now, found = 1e9, list[Reading]()
    for step, signal, device, value in draw(
        st.lists(st.tuples(steps, st.sampled_from(signals), st.sampled_from(DEVICES), values), max_size=40)
    ):
        now += step
        found.append(Reading(signal, device, now, value))
    return found


def arrived(readings: list[Reading]) -> ReadingHistory:
    """Return the history as the daemon holds it: in the order of arrival."""
    runs: dict[tuple[str, str], list[Any]] = {}
    devices = {}
    for reading in readings:
        key = (reading.signal, reading.device.identity)
        append(runs.setdefault(key, []), reading)
        devices[key] = reading.device
    return ReadingHistory({key: Series(key[0], devices[key], tuple(found)) for key, found in runs.items()})


@given(histories(), rules, st.floats(-1e10, 1e10))
@settings(max_examples=100, deadline=None)
def test_no_readings_and_no_rule_make_the_evaluation_raise(
    readings: list[Reading], words: dict[str, Any], now: float
) -> None:
    rule = Rule.model_validate({"id": "r", "verdict": "failing", "why": "w", **words})
    found = evaluate(Policy(rules=(rule,)), arrived(readings), now)
    assert found.verdict in Verdict
    for state in found.states:
        assert state.sentence
        assert bool(state.why_not) != state.fired
        for firing in state.course.firings:
            assert firing.end is None or firing.end >= firing.start


@given(histories())
@settings(max_examples=50, deadline=None)
def test_shipped_rules_judge_anything(readings: list[Reading]) -> None:
    assert evaluate(SHIPPED, arrived(readings), 1e9).verdict in Verdict
    assert evaluate(SHIPPED, ReadingHistory.of(readings), 1e9).verdict in Verdict


class Unpruned(ReadingStore):
    """Keeps everything: what is thinned out on disk is thinned out in memory as well, which is another test."""

    def prune(self, now: float) -> None:
        """Do nothing."""


@given(histories(), rules)
@settings(max_examples=50, deadline=None)
def test_the_same_readings_give_the_same_verdict_after_a_restart(
    readings: list[Reading], words: dict[str, Any]
) -> None:
    rule = Rule.model_validate({"id": "r", "verdict": "failing", "why": "w", **words})
    policy = Policy(rules=(rule, *SHIPPED.rules))
    store = Unpruned(Path(":memory:"), 1e6)
    for reading in readings:
        store.append([reading])
    now = 1e9 + 5
    before = evaluate(policy, arrived(readings), now)
    after = evaluate(policy, store.history(-1e300), now)
    assert (before.verdict, before.lead) == (after.verdict, after.lead)
    assert {(s.rule.id, s.device.identity, s.course) for s in before.states} == {
        (s.rule.id, s.device.identity, s.course) for s in after.states
    }
    store.close()


@given(histories(), rules)
@settings(max_examples=50, deadline=None)
def test_what_is_remembered_is_what_judging_anew_would_say(readings: list[Reading], words: dict[str, Any]) -> None:
    policy = Policy(rules=(Rule.model_validate({"id": "r", "verdict": "failing", "why": "w", **words}),))
    memory = Memory()
    shown: dict[tuple[str, str], Series] = {}
    for count in range(1, len(readings) + 1):
        for key, series in arrived(readings[:count]).series.items():
            shown[key] = series if shown.get(key) != series else shown[key]
        history, now = ReadingHistory(dict(shown)), 1e9 + count
        assert evaluate(policy, history, now, (), memory) == evaluate(policy, history, now)


TEXT = "\n\n".join(path.read_text() for path in sorted((Path(__file__).parents[2] / "policies").glob("*.toml")))


@given(
    st.lists(
        st.tuples(
            st.integers(0, len(TEXT)),
            st.integers(0, 12),
            st.text(alphabet="abcdefhilmnoprstw_.=[]'\"\n0123456789-", max_size=8),
        ),
        min_size=1,
        max_size=4,
    )
)
@settings(max_examples=50, deadline=None)
def test_a_damaged_file_is_read_whole_or_not_at_all(edits: list[tuple[int, int, str]]) -> None:
    text = TEXT
    for place, length, insert in edits:
        text = text[:place] + insert + text[place + length :]
    try:
        found = parse(text, Path("f.toml"), PolicyFile)
    except FileError as error:
        said = [problem.message for problem in error.problems]
        assert said
        assert "" not in said
        return
    written = tomllib.loads(text).get("rule", [])
    for rule, table in zip(found.rule, written, strict=True):
        shown = rule.model_dump(mode="json", by_alias=True, exclude_unset=True)
        assert set(shown) == set(table), "every key that was written is in the rule"


@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(st.sampled_from(["signal", "when", "needs", "within", "where", "for", "id"]), inner),
        ),
        max_leaves=8,
    )
)
@settings(max_examples=80, deadline=None)
def test_no_shape_of_data_makes_the_checks_raise(data: object) -> None:
    for shaped in ({"rule": data}, {"rule": [data]}, {"rule": [{"when": data}]}):
        assert all(message for _, message in PolicyFile.cross_check(shaped))


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "policies").glob("*.toml")), ids=lambda p: p.stem
)
def test_a_shipped_file_is_good_on_a_host_with_default_settings(path: Path) -> None:
    assert load_files([path], timing_of(SignalSettings())).rules
