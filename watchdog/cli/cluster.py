"""Verbs of the cluster: init, invite, join, peers. They work on files, with or without the daemon."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from migrator.errors import UsageError
from migrator.peers import membership
from migrator.peers.authority import write_secret
from watchdog.cli import show
from watchdog.settings import own_name


def init(arguments: argparse.Namespace) -> int:
    """Make a cluster with this host as its first."""
    host = arguments.host or own_name()
    members = membership.init(arguments.directory, host, arguments.address)
    return _told(arguments, {"host": members.host, "directory": str(arguments.directory)}, f"{host} made a cluster")


def invite(arguments: argparse.Namespace) -> int:
    """Write an invitation for another host."""
    bundle = membership.invite(arguments.directory, arguments.host, arguments.address)
    if arguments.output is None:
        sys.stdout.buffer.write(bundle)
        return 0
    write_secret(arguments.output, bundle)
    text = f"{arguments.output}: carry it to {arguments.host} by a safe way, and there: lifeboat cluster join FILE"
    return _told(arguments, {"host": arguments.host, "file": str(arguments.output)}, text)


def join(arguments: argparse.Namespace) -> int:
    """Take an invitation."""
    try:
        bundle = Path(arguments.file).read_bytes()
    except OSError as error:
        raise UsageError(f"{arguments.file}: {error.strerror}", code="bad-invitation") from error
    members = membership.join(arguments.directory, bundle)
    names = ", ".join(peer.name for peer in members.peers())
    text = f"{members.host} joined the cluster of {names}; delete {arguments.file}"
    return _told(arguments, {"host": members.host, "peers": [peer.name for peer in members.peers()]}, text)


def peers(arguments: argparse.Namespace) -> int:
    """List the hosts of the cluster."""
    members = membership.PeerDirectory(arguments.directory)
    if arguments.json:
        show.as_json([peer.model_dump() for peer in members.everyone()])
        return 0
    rows = [
        (peer.name, peer.address, peer.port, peer.stream_port, "this host" if peer.name == members.host else "")
        for peer in members.everyone()
    ]
    show.table(("HOST", "ADDRESS", "PORT", "STREAMS", ""), rows)
    return 0


def _told(arguments: argparse.Namespace, value: dict[str, object], text: str) -> int:
    if arguments.json:
        show.as_json(value)
    else:
        show.line(text)
    return 0
