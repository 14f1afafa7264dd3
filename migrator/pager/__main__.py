"""`python -m migrator.pager DIRECTORY`: run the page sink of one migration, in a systemd scope of its own."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from migrator.model import Pager
from migrator.pager.criu_sink import CriuSink
from migrator.pager.own_sink import OwnSink
from migrator.pager.sink import ORDER, Sink, SinkOrder

SINKS: dict[Pager, type[Sink]] = {Pager.LIFEBOAT: OwnSink, Pager.CRIU: CriuSink}


def main() -> int:
    """Run the sink; the argument is its migration's directory."""
    directory = Path(sys.argv[1])
    logging.basicConfig(
        filename=directory / "sink.log", level=logging.INFO, format="%(asctime)s.%(msecs)03d %(message)s"
    )
    try:
        order = SinkOrder.model_validate_json((directory / ORDER).read_text())
        return SINKS[order.pager](directory, order).run()
    except Exception:  # the entry point: the log must tell
        logging.exception("the sink failed")
        return 1


if __name__ == "__main__":
    sys.exit(main())
