"""A page source of its own, where no podman and no CRIU are: what the shim does with it, told by standard input.

    page_source.py PID ADDRESS PORT SETTINGS     (SETTINGS: JSON of MigratorSettings and `plain`, `addresses`)

It says `ready` when the sink has taken its calls; `finish` ends it well.
"""

from __future__ import annotations

import json
import logging
import socket
import sys
from pathlib import Path

from migrator.pager.source import PageSource
from migrator.settings import MigratorSettings
from migrator.shim.order import PagerAddress

MIGRATION, SECRET = "drain", "0123456789abcdef"


def main() -> None:
    """Serve until told to end."""
    pid, address, port, text = sys.argv[1:]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    settings = json.loads(text)
    where = PagerAddress(
        host="beta",
        address=address,
        port=int(port),
        secret=SECRET,
        plain=settings.pop("plain", False),
        addresses=tuple(settings.pop("addresses", ())),
    )
    page_server = socket.create_server(("127.0.0.1", 0))  # stands for CRIU's, which holds the tree
    source = PageSource(where, Path("/etc/lifeboat/pki"), MIGRATION, MigratorSettings.model_validate(settings))
    source.start(page_server.getsockname()[1], (int(pid),))
    print("ready", flush=True)
    sys.stdin.readline()
    source.finish()


if __name__ == "__main__":
    main()
