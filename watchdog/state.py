"""The host's state and what follows from a verdict. Pure: values in, values out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from migrator.health import Verdict
from watchdog.policy.evaluate import Assessment


class HostState(StrEnum):
    """Where this host stands."""

    HEALTHY = "healthy"
    SUSPECT = "suspect"
    FAILING = "failing"  # to be evacuated, or waiting for permission
    EVACUATING = "evacuating"
    EVACUATED = "evacuated"  # nothing is left to move, or nothing could be


class Action(StrEnum):
    """What the tick must do."""

    ALERT = "alert"
    EVACUATE = "evacuate"
    STOP = "stop"  # the host is well again, or too many are unwell: begin no further migration


TRANSITIONS: dict[HostState, frozenset[HostState]] = {
    HostState.HEALTHY: frozenset({HostState.SUSPECT, HostState.FAILING}),
    HostState.SUSPECT: frozenset({HostState.HEALTHY, HostState.FAILING}),
    HostState.FAILING: frozenset({HostState.HEALTHY, HostState.SUSPECT, HostState.EVACUATING}),
    HostState.EVACUATING: frozenset({HostState.EVACUATED, HostState.HEALTHY, HostState.SUSPECT, HostState.FAILING}),
    HostState.EVACUATED: frozenset({HostState.HEALTHY, HostState.SUSPECT, HostState.EVACUATING}),
}
"""Allowed changes; staying is always allowed."""


@dataclass(frozen=True)
class Circumstances:
    """What an admin has said, and how far an evacuation is."""

    automatic: bool = True
    paused: bool = False
    clustered: bool = True
    shut: str = ""  # why a host of a cluster can move nothing at all
    surveyed: bool = True  # the other hosts were asked how they are
    storm: str = ""  # why signals alone are not believed now
    evacuation_ended: bool = False

    @property
    def permitted(self) -> bool:
        """Say whether a failing host may empty itself."""
        return self.surveyed and not self.hindrance

    @property
    def hindrance(self) -> str:
        """Say why a failing host may not empty itself, empty when nothing speaks against it."""
        if self.paused:
            return "paused by an admin"
        if not self.automatic:
            return "evacuation.automatic is off"
        if self.shut:
            return self.shut
        if not self.clustered:
            return "this host belongs to no cluster"
        return f"not moved on signals alone, as {self.storm}" if self.storm else ""


@dataclass(frozen=True)
class Decision:
    """The next state, what to do, and one sentence that says why."""

    state: HostState
    actions: tuple[Action, ...]
    sentence: str


def decide(state: HostState, assessment: Assessment, circumstances: Circumstances) -> Decision:
    """Return what follows for a host in `state` from an assessment."""
    following = _next(state, assessment.verdict, circumstances)
    if following is not state and following not in TRANSITIONS[state]:
        raise AssertionError(f"{state} cannot become {following}")
    return Decision(following, _actions(state, following), _sentence(following, assessment, circumstances))


def _next(state: HostState, verdict: Verdict, circumstances: Circumstances) -> HostState:
    if verdict is Verdict.FAILING:
        if state is HostState.EVACUATING and circumstances.storm:
            return HostState.FAILING
        if state is HostState.EVACUATING:
            return HostState.EVACUATED if circumstances.evacuation_ended else state
        if state is HostState.EVACUATED:
            return state
        if state is HostState.FAILING and circumstances.permitted:
            return HostState.EVACUATING
        return HostState.FAILING
    return HostState.SUSPECT if verdict is Verdict.SUSPECT else HostState.HEALTHY


def _actions(state: HostState, following: HostState) -> tuple[Action, ...]:
    if following is state:
        return ()
    if following is HostState.EVACUATING:
        return (Action.ALERT, Action.EVACUATE)
    if state is HostState.EVACUATING and following is not HostState.EVACUATED:
        return (Action.ALERT, Action.STOP)
    return (Action.ALERT,)


def _sentence(following: HostState, assessment: Assessment, circumstances: Circumstances) -> str:
    because = assessment.reason
    if following is HostState.FAILING and circumstances.hindrance:
        return f"failing, but {circumstances.hindrance}, because {because}"
    return f"{following} because {because}"
