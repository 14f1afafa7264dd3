"""Bring the policy files together: shipped ones, overridden or masked by those of the admin.

As systemd does it: a file in /etc/lifeboat/policies replaces the shipped one of the same name; a link to
/dev/null masks it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

from watchdog.policy.check import Timing, impossible_timings
from watchdog.policy.model import Policy, PolicyFile
from watchdog.signals.settings import SignalSettings
from watchdog.toml_files import FileError, Problem, parse, problem_at, read

SHIPPED = Path("/usr/lib/lifeboat/policies")
LOCAL = Path("/etc/lifeboat/policies")


def policy_files(shipped: Path = SHIPPED, local: Path = LOCAL) -> tuple[Path, ...]:
    """Return the files in force, by name."""
    found = {path.name: path for path in sorted(shipped.glob("*.toml"))}
    found.update({path.name: path for path in sorted(local.glob("*.toml"))})
    return tuple(path for _, path in sorted(found.items()) if path.resolve() != Path("/dev/null"))


def load_policy(shipped: Path = SHIPPED, local: Path = LOCAL, timing: Timing | None = None) -> Policy:
    """Load all rules in force; raises `FileError` with all errors of all files."""
    return load_files(policy_files(shipped, local), timing)


def load_files(paths: Sequence[Path], timing: Timing | None = None) -> Policy:
    """Load the rules of the given files; with `timing`, times that cannot work on this host are errors."""
    problems: list[Problem] = []
    found: list[tuple[Path, PolicyFile]] = []
    for path in paths:
        try:
            text = read(path)
            found.append((path, parse(text, path, PolicyFile)))
        except FileError as error:
            problems += error.problems
        else:
            problems += _untimely(path, text, timing) if timing else ()
    rules = [(path, rule.id, f"rule {rule.id}") for path, file in found for rule in file.rule]
    windows = [(path, window.name, f"window {window.name}") for path, file in found for window in file.window]
    problems += [*_repeated(rules, "ids"), *_repeated(windows, "names")]
    if problems:
        raise FileError(problems)
    return Policy(
        rules=tuple(rule for _, file in found for rule in file.rule),
        windows=tuple(window for _, file in found for window in file.window),
    )


def timing_of(settings: SignalSettings) -> Timing:
    """Return how often signals are read, and how long readings are kept, by the settings."""
    polls = {
        name.removesuffix("_poll_s"): float(value)
        for name, value in settings
        if name.endswith("_poll_s") and isinstance(value, int | float)
    }
    return Timing(keep_s=settings.keep_days * 86400.0, poll_s=polls)


def _untimely(path: Path, text: str, timing: Timing) -> Iterator[Problem]:
    for number, rule in enumerate(tomllib.loads(text).get("rule", ())):
        for location, message in impossible_timings(rule, timing):
            yield problem_at(path, text, ("rule", number, *location), message)


def _repeated(named: Sequence[tuple[Path, str, str]], what: str) -> Iterator[Problem]:
    first: dict[str, Path] = {}
    for path, name, key in named:
        if name in first:
            yield Problem(path, 0, key, f"is also in {first[name]}; {what} must be unique")
        first.setdefault(name, path)
