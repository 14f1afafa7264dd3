"""What the exhaustive models of the protocol share: how a state was reached, and from where no rest can be."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import TypeVar

State = TypeVar("State", bound=Hashable)


def story(came: Mapping[State, tuple[State | None, str]], state: State) -> str:
    """Return the steps that lead to a state; `came` has the one before each, None before the first."""
    names: list[str] = []
    at: State | None = state
    while at is not None:
        at, name = came[at]
        names.append(name)
    return " / ".join(reversed(names[:-1]))


def without_rest(onward: Mapping[State, Iterable[State]], resting: Iterable[State]) -> list[State]:
    """Return the states from which no resting one can be reached; `onward` has what may follow each."""
    backward: dict[State, list[State]] = {}
    for state, following in onward.items():
        for after in following:
            backward.setdefault(after, []).append(state)
    found = set(resting)
    pending = list(found)
    while pending:
        for before in backward.get(pending.pop(), ()):
            if before not in found:
                found.add(before)
                pending.append(before)
    return [state for state in onward if state not in found]
