"""`python -m migrator.peers.renewal DIRECTORY`: get this host a new certificate when it is time.

A program of its own, for it needs the whole of `cryptography` (10 MiB) once an hour for a moment; it prints a line
when there is a new certificate, and ends with status 1 and its reason when there could be none.
"""

from __future__ import annotations

import datetime
import sys
from pathlib import Path

from migrator.errors import LifeboatError
from migrator.peers import joining
from migrator.peers.membership import PeerDirectory


def main(directory: Path) -> int:
    """Look, and renew long before the certificate ends; return the exit status."""
    members = PeerDirectory(directory)
    try:
        if joining.due(members, datetime.datetime.now(datetime.UTC)):
            joining.renew(members)
            sys.stdout.write("this host has a new certificate\n")
    except LifeboatError as error:
        sys.stderr.write(f"this host's certificate could not be renewed: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
