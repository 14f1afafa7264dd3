"""Which containers of this host are being moved: each by one migration at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from migrator.errors import PrerequisiteError

AGAIN_S = 1.0


class Claims:
    """Containers by their id; safe to share between threads."""

    def __init__(self) -> None:
        self._claimed: set[str] = set()
        self._lock = threading.Lock()

    @contextmanager
    def wait_for(self, container: str) -> Iterator[None]:
        """As `claim`, when whoever has it is done."""
        while not self._take(container):
            time.sleep(AGAIN_S)
        with self._giving_back(container):
            yield

    @contextmanager
    def claim(self, container: str, name: str) -> Iterator[None]:
        """Hold a container against a second migration of it; raises `PrerequisiteError` when one is under way."""
        if not self._take(container):
            raise PrerequisiteError(
                f"{name} is being moved already", code="already-moving", hint="lifeboat history", temporary=True
            )
        with self._giving_back(container):
            yield

    def _take(self, container: str) -> bool:
        with self._lock:
            free = container not in self._claimed
            self._claimed.add(container)
            return free

    @contextmanager
    def _giving_back(self, container: str) -> Iterator[None]:
        try:
            yield
        finally:
            with self._lock:
                self._claimed.discard(container)
