"""Whether an evacuation would succeed today: looked at now and then, told once when it changes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

from migrator.container.verdicts import ContainerVerdict
from migrator.errors import LifeboatError

_log = logging.getLogger(__name__)

FIRST_S = 60.0

Verdicts = tuple[ContainerVerdict, ...]


class Readiness:
    """The last look at all containers; a look takes seconds, so it has a thread of its own."""

    def __init__(self, every_s: float, told: Callable[[Verdicts], None]) -> None:
        """`told` takes the verdicts of each look; `every_s` is 0 for never."""
        self._every_s = every_s
        self._told = told
        self._next_at = time.monotonic() + min(every_s, FIRST_S)  # the other hosts may just be starting as well
        self._thread: threading.Thread | None = None
        self.verdicts: Verdicts = ()
        self.looked_at: float | None = None  # Unix seconds

    def tick(self, examine: Callable[[], Verdicts]) -> None:
        """Begin a look when it is time and none is under way."""
        if not self._every_s or time.monotonic() < self._next_at:
            return
        if self._thread is not None and self._thread.is_alive():
            return
        self._next_at = time.monotonic() + self._every_s
        self._thread = threading.Thread(target=self._look, args=(examine,), name="readiness", daemon=True)
        self._thread.start()

    def _look(self, examine: Callable[[], Verdicts]) -> None:
        try:
            self.verdicts = examine()
        except (LifeboatError, OSError) as error:
            _log.warning("it could not be looked whether containers can be moved: %s", error)
            return
        self._told(self.verdicts)
        self.looked_at = time.time()


def stuck(verdicts: Verdicts) -> dict[str, str]:
    """Return what could not be moved: "name: codes" -> the sentence for people."""
    return {
        f"{item.container}: {', '.join(item.causes)}": f"{item.container}: {item.reason or 'no host can take it'}"
        for item in verdicts
        if item.causes
    }


def change(known: tuple[str, ...], now: Mapping[str, str]) -> str:
    """Return what is to be told when `known` was told before, empty for nothing."""
    if new := sorted(set(now) - set(known)):
        return f"an evacuation would leave behind {'; '.join(now[item] for item in new)}"
    return "an evacuation would take every container again" if known and not now else ""
