"""The model of a pod, all interleavings: see tests/pure/pod_model.py."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.pure import pod_model as model
from tests.pure.exploring import story, without_rest

DEATHS = 3


def test_never_half_a_pod() -> None:
    came = model.explore(DEATHS)
    broken = {model.wrong(state): story(came, state) for state in came if model.wrong(state)}
    assert broken == {}
    assert len(came) > 5_000


def restless(limit: int) -> list[str]:
    """Return the stories of states from which, without another death, no rest can be reached, even by a human."""
    came = model.explore(limit)
    onward = {state: [after for _, after in model.steps(state, 0)] for state in came}
    return [story(came, state) for state in without_rest(onward, filter(model.place, came))]


def test_from_everywhere_all_of_it_comes_to_rest_or_a_human_can_settle_it() -> None:
    assert restless(DEATHS) == []


def test_every_place_is_reached() -> None:
    found = {model.place(state) for state in model.explore(2)}
    assert found >= {"source", "target", "anew at the target", "lost with its host"}


MUTATIONS: dict[str, tuple[str, Callable[..., object], str]] = {
    "a member commits although another was given back": (
        "worded",
        lambda words, wanted: [word or wanted for word in words],
        "one member here, the other there",
    ),
    "a source releases a member when that one is there": (
        "may_release",
        lambda *_: True,
        "one member was thrown away before the other was there",
    ),
    "a target answers for a member that still runs": ("looked", lambda state, _: state, "two open gates"),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_model_finds_a_broken_rule(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rule, broken, harm = MUTATIONS[name]
    monkeypatch.setattr(model, rule, broken)
    came = model.explore(2)
    assert harm in {model.wrong(state) for state in came}


def test_what_one_member_has_lost_all_have_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or nobody could settle a pod of which one member is there and another's memory is gone."""
    monkeypatch.setattr(model, "with_its_pod", lambda standing, *_, **__: standing)
    assert restless(2) != []
