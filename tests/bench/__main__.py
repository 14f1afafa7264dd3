"""`./run bench NAME [options]`: run one, or list them; see the package."""

from __future__ import annotations

import sys

import tests.bench
from tests.named import run_named

if __name__ == "__main__":
    sys.exit(run_named(tests.bench, "bench"))
