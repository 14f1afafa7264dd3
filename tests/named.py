"""What is run by name, `./run bench NAME` and `./run soak NAME`: modules of a package, each with a `main`."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from types import ModuleType


def run_named(package: ModuleType, verb: str) -> int:
    """Run the module that the first argument names, with the others; without a name, list them (exit status 2)."""
    names = sorted(module.name for module in pkgutil.iter_modules(package.__path__) if module.name[0] != "_")
    chosen = sys.argv[1] if len(sys.argv) > 1 else ""
    if chosen not in names:
        print(f"usage: ./run {verb} NAME [options]; there are: {', '.join(names) or 'none'}", file=sys.stderr)
        return 2
    return int(importlib.import_module(f"{package.__name__}.{chosen}").main(sys.argv[2:]))
