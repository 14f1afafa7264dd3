"""How good the admin's own rules were: precision and recall over evacuations whose outcome is known. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from migrator.model import Value
from watchdog.policy.truth import Truth


class Case(Value):
    """One evacuation, or one failure without: the rules that had fired, the devices, and what it really was."""

    id: str
    at: float  # Unix seconds
    rules: tuple[str, ...]
    devices: tuple[str, ...] = ()
    truth: Truth | None = None  # nobody has said yet
    note: str = ""


@dataclass(frozen=True)
class Score:
    """Of one rule, or of all together (`rule` is empty).

    `precision` is the share of its alarms that were true, `recall` that of all failures it foretold; None when
    there is nothing to divide by.
    """

    rule: str
    true_alarms: int
    false_alarms: int
    failures: int

    @property
    def precision(self) -> float | None:
        """Return the share of the alarms that were true."""
        alarms = self.true_alarms + self.false_alarms
        return self.true_alarms / alarms if alarms else None

    @property
    def recall(self) -> float | None:
        """Return the share of the failures that were foretold."""
        return self.true_alarms / self.failures if self.failures else None


def score(cases: Sequence[Case]) -> tuple[Score, ...]:
    """Return the score of all rules together, and then of each that ever fired; manual evacuations count not."""
    known = [case for case in cases if case.truth is not None and (case.rules or case.truth is Truth.MISSED)]
    failures = len([case for case in known if case.truth is not Truth.FALSE_ALARM])
    rules = sorted({rule for case in known for rule in case.rules})
    return tuple(
        _score(rule, [case for case in known if not rule or rule in case.rules], failures) for rule in ("", *rules)
    )


def _score(rule: str, cases: Sequence[Case], failures: int) -> Score:
    true = len([case for case in cases if case.truth is Truth.CONFIRMED])
    false = len([case for case in cases if case.truth is Truth.FALSE_ALARM])
    return Score(rule, true, false, failures)
