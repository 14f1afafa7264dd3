"""Libraries that are loaded when they are first used: an idle daemon does not pay for what it may never do."""

from __future__ import annotations

import importlib
from typing import Any


class Later:
    """Stands for a module by its full name; the first look into it loads it.

    Threads may look at the same time, for the import system itself lets one load and the others wait.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)
