"""`./run soak NAME [options]`: run one soak test, or list them; a soak test is a module here with a `main`."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import tests.soak


def main() -> int:
    """Run the bench that is named; return its exit status."""
    names = sorted(module.name for module in pkgutil.iter_modules(tests.soak.__path__) if module.name[0] != "_")
    chosen = sys.argv[1] if len(sys.argv) > 1 else ""
    if chosen not in names:
        print(f"usage: ./run soak NAME [options]; there are: {', '.join(names) or 'none'}", file=sys.stderr)
        return 2
    return int(importlib.import_module(f"tests.soak.{chosen}").main(sys.argv[2:]))


if __name__ == "__main__":
    sys.exit(main())
