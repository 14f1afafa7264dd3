"""rsync's remote shell: joins standard input and output to a stream of the peer's lifeboatd.

rsync runs `python -m migrator.storage.remote_shell DIRECTORY MIGRATION TREE PEER rsync --server ...`; its
server command goes along in the stream's header, and the peer puts its own path in.
"""

from __future__ import annotations

import sys
from pathlib import Path

from migrator.peers.streams import connect_standard_streams


def main() -> int:
    """Run one remote shell; the exit status is what rsync shows when the peer refuses."""
    directory, migration, tree, peer, *command = sys.argv[1:]
    header = {"kind": "rsync", "migration": migration, "tree": tree, "command": "\0".join(command)}
    return connect_standard_streams(Path(directory), peer, header)


if __name__ == "__main__":
    sys.exit(main())
