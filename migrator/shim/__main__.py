"""Entry of the shim; see the package. Usage: python -m migrator.shim DIRECTORY RUNTIME-ARGUMENTS..."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from migrator.protocol.journal import Side
from migrator.shim.order import read_order
from migrator.shim.source import SourceShim
from migrator.shim.target import TargetShim


def main() -> int:
    """Park what must be parked, pass everything else on to the real runc."""
    directory, arguments = Path(sys.argv[1]), sys.argv[2:]
    order = read_order(directory)
    verb = next((word for word in arguments if word in ("checkpoint", "restore")), None)
    if verb is None or "--help" in arguments:
        os.execv(order.runc, [order.runc, *arguments])  # noqa: S606  this is what a runtime shim is
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
