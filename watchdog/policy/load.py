"""Bring the policy files together: shipped ones, overridden or masked by those of the admin.

As systemd does it: a file in /etc/lifeboat/policies replaces the shipped one of the same name; a link to
/dev/null masks it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from watchdog.policy.model import Policy, PolicyFile, Rule
from watchdog.toml_files import FileError, Problem, load

SHIPPED = Path("/usr/lib/lifeboat/policies")
LOCAL = Path("/etc/lifeboat/policies")


def policy_files(shipped: Path = SHIPPED, local: Path = LOCAL) -> tuple[Path, ...]:
    """Return the files in force, by name."""
    found = {path.name: path for path in sorted(shipped.glob("*.toml"))}
    found.update({path.name: path for path in sorted(local.glob("*.toml"))})
    return tuple(path for _, path in sorted(found.items()) if path.resolve() != Path("/dev/null"))


def load_policy(shipped: Path = SHIPPED, local: Path = LOCAL) -> Policy:
    """Load all rules in force; raises `FileError` with all errors of all files."""
    return load_files(policy_files(shipped, local))


def load_files(paths: Sequence[Path]) -> Policy:
    """Load the rules of the given files."""
    problems: list[Problem] = []
    rules: dict[str, tuple[Rule, Path]] = {}
    for path in paths:
        try:
            found = load(path, PolicyFile).rule
        except FileError as error:
            problems += error.problems
            continue
        for rule in found:
            if rule.id in rules:
                problems.append(
                    Problem(path, 0, f"rule {rule.id}", f"is also in {rules[rule.id][1]}; ids must be unique")
                )
            rules[rule.id] = (rule, path)
    if problems:
        raise FileError(problems)
    return Policy(rules=tuple(rule for rule, _ in rules.values()))
