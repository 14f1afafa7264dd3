"""Which containers of this host are being moved: each by one migration at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from migrator.errors import PrerequisiteError

AGAIN_S = 1.0


class Claims:
    """Containers by their id; safe to share between threads."""

    def __init__(self) -> None:
        self._claimed: set[str] = set()
        self._lock = threading.Lock()

    @contextmanager
    def wait_for(self, container: str, name: str) -> Iterator[None]:
        """As `claim`, when whoever has it is done."""
        while True:
            with ExitStack() as held:
                try:
                    held.enter_context(self.claim(container, name))
                except PrerequisiteError:
                    time.sleep(AGAIN_S)
                    continue
                yield
                return

    @contextmanager
    def claim(self, container: str, name: str) -> Iterator[None]:
        """Hold a container against a second migration of it; raises `PrerequisiteError` when one is under way."""
        with self._lock:
            if container in self._claimed:
                raise PrerequisiteError(
                    f"{name} is being moved already", code="already-moving", hint="lifeboat history", temporary=True
                )
            self._claimed.add(container)
        try:
            yield
        finally:
            with self._lock:
                self._claimed.discard(container)
