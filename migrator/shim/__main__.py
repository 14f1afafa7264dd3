"""Entry of the shim; see the package. Usage: python -m migrator.shim DIRECTORY RUNTIME-ARGUMENTS..."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from migrator.protocol.journal import Side
from migrator.shim.order import read_order
from migrator.shim.source import SourceShim
from migrator.shim.target import TargetShim


def main() -> int:
    """Park a checkpoint or a restore."""
    directory, arguments = Path(sys.argv[1]), sys.argv[2:]
    order = read_order(directory)
    logging.basicConfig(
        filename=directory / "shim.log", level=logging.INFO, format="%(asctime)s.%(msecs)03d %(message)s"
    )
    shim = SourceShim if order.side is Side.SOURCE else TargetShim
    try:
        return shim(directory, order, arguments).run()
    except Exception:  # the entry point: podman must get an exit status, and the log the reason
        logging.exception("the shim failed")
        return 1


if __name__ == "__main__":
    sys.exit(main())
