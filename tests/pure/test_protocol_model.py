"""The model of the protocol, all interleavings: see tests/pure/protocol_model.py."""

from __future__ import annotations

import pytest

from migrator.protocol import steps
from migrator.protocol.messages import Standing
from migrator.protocol.steps import Reply, SourceStep, Step
from tests.pure import protocol_model as model
from tests.pure.exploring import story, without_rest
from tests.pure.protocol_model import State

DEATHS = 5
"""How many things go wrong in one migration. More find nothing new: each step can be hit, and hit again while it
is being recovered from."""


@pytest.fixture(scope="module")
def explored() -> tuple[dict[State, tuple[State | None, str]], dict[State, tuple[State, ...]]]:
    """Return the whole space."""
    return model.explore(DEATHS)


Explored = tuple[dict[State, tuple[State | None, str]], dict[State, tuple[State, ...]]]


def test_no_reachable_state_breaks_an_invariant(explored: Explored) -> None:
    came, _ = explored
    broken = {model.wrong(state): story(came, state) for state in came if model.wrong(state)}
    assert broken == {}
    assert len(came) > 10_000


def test_from_everywhere_it_comes_to_rest_by_itself_or_calls_a_human(explored: Explored) -> None:
    came, onward = explored
    assert [story(came, state) for state in without_rest(onward, filter(model.place, came))] == []


def test_every_place_is_reached(explored: Explored) -> None:
    came, _ = explored
    assert {model.place(state) for state in came} >= {"source", "target", "human"}


def test_without_a_death_nobody_is_called() -> None:
    came, _ = model.explore(0)
    called = {story(came, state) for state in came if state.human}
    assert all("human asks" in words for words in called)  # only when somebody meddled
    assert any(state.t_full and state.s_settled for state in came)


MUTATIONS = {
    "thaws after the commit": ("may_give_back", lambda _row: True, "two open gates"),
    "opens without the commit": (
        "next_step",
        lambda standing, *_, **__: Step.COMMIT if standing is Standing.RESTORED else Step.WAIT,
        "two open gates",
    ),
    "releases while it drains": (
        "source_step",
        lambda *_, **__: SourceStep.RELEASE,
        "on neither host, and no host was lost",
    ),
    "opens what it aborted": ("answer_commit", lambda *_: Reply.DO, "two open gates"),
    "releases before the files are on disk": (
        "source_step",
        lambda own, target, **words: (
            SourceStep.RELEASE if own and target is Standing.DRAINING else steps.source_step(own, target, **words)
        ),
        "the only files could be lost in a power cut",
    ),
    "trusts files that were not on disk": (
        "next_step",
        lambda *now, **words: steps.next_step(*now, **{**words, "durable": True}),
        "started from files that a power cut has torn",
    ),
    "lets two start": ("may_resume", lambda *_, **__: "", "two open gates"),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_model_finds_a_broken_rule(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each rule is needed: without it the model finds the harm."""
    rule, broken, harm = MUTATIONS[name]
    monkeypatch.setattr(model, rule, broken)
    came, _ = model.explore(2)
    assert harm in {model.wrong(state) for state in came}
