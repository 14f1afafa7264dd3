"""What an admin says about a container by its labels, read once and checked.

A label that cannot be understood changes nothing and is told in the plan: on a failing host a container is
better moved without its wish than left behind with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from migrator.model import Fallback, Method

PREFIX = "lifeboat."
LABELS: dict[str, str] = {
    "lifeboat.priority": "a whole number; higher goes first, the default is 0",
    "lifeboat.evacuate": "`no`: it stays, whatever happens to the host",
    "lifeboat.method": "the rung to start from for this container, instead of migrator.method",
    "lifeboat.fallback": "what is done where its memory was lost in the drain, instead of migrator.fallback",
    "lifeboat.bind-mounts": "`refuse` or `sync`: what is done with local directories mounted into it",
    "lifeboat.pin": "hosts, by commas: it goes to one of these or not at all",
    "lifeboat.forbid": "hosts, by commas: it never goes there",
    "lifeboat.require": "labels a host must have (migrator.labels there), as `rack=r2,ssd=yes`",
    "lifeboat.with": "a word: all containers of this host that share it go to one host, one after the other",
    "lifeboat.apart": "a word: containers that share it are kept on different hosts as far as that is possible",
    "lifeboat.after": "containers, by commas: it goes when these have gone",
    "lifeboat.canary": "`yes`: this is the container that `lifeboat drill` moves",
}
"""Every label with its meaning; the manual is made from this."""

YES, NO = frozenset({"yes", "true", "1"}), frozenset({"no", "false", "0"})


@dataclass(frozen=True)
class Wishes:
    """The labels of one container, understood; `problems` names those that were not."""

    priority: int = 0
    stays: bool = False
    method: Method | None = None
    pinned: frozenset[str] | None = None  # None: anywhere
    forbidden: frozenset[str] = frozenset()
    required: frozenset[tuple[str, str]] = frozenset()
    together: str = ""
    apart: str = ""
    after: tuple[str, ...] = ()
    canary: bool = False
    problems: tuple[str, ...] = ()


def wishes(labels: Mapping[str, str]) -> Wishes:
    """Read the labels of a container."""
    if not any(name.startswith(PREFIX) for name in labels):
        return NOTHING
    problems = [f"no such label: {name}" for name in labels if name.startswith(PREFIX) and name not in LABELS]

    def say(name: str, allowed: str) -> None:
        problems.append(f"label {name}={labels[name]!r} is not understood: {allowed}")

    def flag(name: str) -> bool | None:
        word = labels.get(name, "").lower()
        if word and word not in YES | NO:
            say(name, "yes or no")
        return True if word in YES else False if word in NO else None

    priority, method = 0, None
    if text := labels.get("lifeboat.priority"):
        try:
            priority = int(text)
        except ValueError:
            say("lifeboat.priority", "a whole number")
    if labels.get("lifeboat.fallback", Fallback.STAY) not in set(Fallback):
        say("lifeboat.fallback", " or ".join(Fallback))
    if text := labels.get("lifeboat.method"):
        if text in set(Method):
            method = Method(text)
        else:
            say("lifeboat.method", ", ".join(Method))
    pairs = [tuple(part.strip() for part in item.split("=", 1)) for item in _words(labels, "lifeboat.require")]
    if any(len(pair) != 2 for pair in pairs):
        say("lifeboat.require", "name=value, by commas")
    return Wishes(
        priority=priority,
        stays=flag("lifeboat.evacuate") is False,
        method=method,
        pinned=frozenset(_words(labels, "lifeboat.pin")) if labels.get("lifeboat.pin", "").strip() else None,
        forbidden=frozenset(_words(labels, "lifeboat.forbid")),
        required=frozenset((pair[0], pair[1]) for pair in pairs if len(pair) == 2),
        together=labels.get("lifeboat.with", "").strip(),
        apart=labels.get("lifeboat.apart", "").strip(),
        after=_words(labels, "lifeboat.after"),
        canary=flag("lifeboat.canary") is True,
        problems=tuple(problems),
    )


NOTHING = Wishes()


def _words(labels: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in labels.get(name, "").split(",") if word.strip())
