"""What became of evacuations, as admins tell it: the ground truth against which rules are scored.

One JSON file, `ledger.json`; small, for evacuations are rare.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterable
from pathlib import Path

from pydantic import Field, ValidationError

from migrator.errors import UsageError
from migrator.model import Value
from watchdog.daemon.kept import KeptFile
from watchdog.policy.score import Case
from watchdog.policy.truth import Truth
from watchdog.toml_files import nearest

KEPT_CASES = 1000
SAME_S = 86400.0  # an evacuation for the same reason within a day is the same


class Cases(Value):
    """The file."""

    cases: tuple[Case, ...] = Field(default=())


class Ledger:
    """Evacuations, and failures that none foretold; on disk as soon as that takes them."""

    def __init__(self, path: Path) -> None:
        self.file = KeptFile(path)
        self._lock = threading.Lock()
        try:
            self._cases = Cases.model_validate_json(path.read_bytes()).cases
        except (FileNotFoundError, ValidationError):
            self._cases = ()

    @property
    def cases(self) -> tuple[Case, ...]:
        """Return all cases, oldest first."""
        return self._cases

    def began(self, case: str, rules: Iterable[str], devices: Iterable[str]) -> None:
        """Note an evacuation and the rules that had fired; one that only goes on after a restart is no other."""
        fired, places = tuple(dict.fromkeys(rules)), tuple(dict.fromkeys(devices))
        last = self._cases[-1] if self._cases else None
        if (
            last
            and (last.rules, last.devices, last.truth) == (fired, places, None)
            and last.at > time.time() - SAME_S
        ):
            return
        self._keep((*self._cases, Case(id=case, at=time.time(), rules=fired, devices=places)))

    def judge(self, case: str, truth: Truth, note: str) -> Case:
        """Note what an evacuation really was for; raises `UsageError` when there was none of the name.

        Raises `ExecutionError` when it is noted, but not on disk; so does `missed`.
        """
        found = next((item for item in self._cases if item.id == case), None)
        if found is None:
            known = [item.id for item in self._cases]
            raise UsageError(
                f"there was no evacuation {case!r}{nearest(case, known)}",
                code="no-such-evacuation",
                hint="lifeboat verdict, without anything, lists them",
            )
        judged = found.model_copy(update={"truth": truth, "note": note})
        self._keep(tuple(judged if item.id == case else item for item in self._cases))
        self.file.check()
        return judged

    def missed(self, device: str, note: str) -> Case:
        """Note a failure that no evacuation came before."""
        case = Case(
            id=uuid.uuid4().hex[:8], at=time.time(), rules=(), devices=(device,), truth=Truth.MISSED, note=note
        )
        self._keep((*self._cases, case))
        self.file.check()
        return case

    def _keep(self, cases: tuple[Case, ...]) -> None:
        with self._lock:
            self._cases = cases[-KEPT_CASES:]
            self.file.keep(Cases(cases=self._cases).model_dump_json(indent=1).encode())


def _is_recent(case: Case) -> bool:
    return case.at > time.time() - SAME_S
