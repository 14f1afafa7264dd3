"""Verbs of the cluster: init, token, invite, join, remove, renew, peers. They work on files, without the daemon."""

from __future__ import annotations

import argparse
import datetime
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from migrator.errors import UsageError
from migrator.later import Later
from migrator.peers import joining, membership
from migrator.peers.authority import life, write_secret
from migrator.peers.membership import PeerDirectory
from migrator.peers.tls import OWN
from watchdog.cli import show

if TYPE_CHECKING:
    from watchdog import settings
else:
    settings = Later("watchdog.settings")

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
LONGEST_TTL_S = 7 * 86400


def init(arguments: argparse.Namespace) -> int:
    """Make a cluster with this host as its first."""
    host = arguments.host or settings.own_name()
    members = membership.init(arguments.directory, host, arguments.address)
    return _told(arguments, {"host": members.host, "directory": str(arguments.directory)}, f"{host} made a cluster")


def token(arguments: argparse.Namespace) -> int:
    """Make a one-time token; it alone goes to standard output."""
    ttl_s = duration_s(arguments.ttl)
    word = str(joining.give_token(arguments.directory, arguments.host or "", ttl_s))
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=ttl_s)
    if arguments.json:
        show.as_json({"token": word, "host": arguments.host, "until": until.timestamp()})
    else:
        sys.stdout.write(f"{word}\n")
    return 0


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
    """Join by a token, or take an invitation."""
    if arguments.token is not None:
        members, also = _join_by_token(arguments), ""
    else:
        members, also = _take_invitation(arguments), f"; delete {arguments.file}"
    names = ", ".join(peer.name for peer in members.peers())
    text = f"{members.host} joined the cluster of {names}{also}"
    return _told(arguments, {"host": members.host, "peers": [peer.name for peer in members.peers()]}, text)


def _join_by_token(arguments: argparse.Namespace) -> PeerDirectory:
    if arguments.file is not None or arguments.address is None:
        raise UsageError(
            "with a token, --address says where peers reach this host, and there is no file",
            code="bad-arguments",
            hint="lifeboat cluster join --token TOKEN --address ADDRESS",
        )
    word = sys.stdin.readline().strip() if arguments.token == "-" else arguments.token  # noqa: S105  a file's name
    host = arguments.host or settings.own_name()
    return joining.join_by_token(arguments.directory, word, host, arguments.address)


def _take_invitation(arguments: argparse.Namespace) -> PeerDirectory:
    if arguments.file is None:
        raise UsageError("there is neither a token nor a file", code="bad-arguments", hint="--token TOKEN, or FILE")
    try:
        bundle = Path(arguments.file).read_bytes()
    except OSError as error:
        raise UsageError(f"{arguments.file}: {error.strerror}", code="bad-invitation") from error
    return membership.join(arguments.directory, bundle)


def remove(arguments: argparse.Namespace) -> int:
    """Strike a host off the roll; its certificates are good no more, wherever the new roll has come."""
    roll = membership.remove(arguments.directory, arguments.host)
    value = {"host": arguments.host, "version": roll.version}
    return _told(arguments, value, f"{arguments.host} is no host of the cluster any more; the others are told now")


def renew(arguments: argparse.Namespace) -> int:
    """Get this host a new certificate now."""
    members = PeerDirectory(arguments.directory)
    joining.renew(members)
    until = _until(members)
    text = f"{members.host} has a new certificate, good until {until:%Y-%m-%d}; lifeboatd shows it within the hour"
    return _told(arguments, {"host": members.host, "until": until.timestamp()}, text)


def peers(arguments: argparse.Namespace) -> int:
    """List the hosts of the cluster."""
    members = PeerDirectory(arguments.directory)
    if arguments.json:
        show.as_json([peer.model_dump() for peer in members.everyone()])
        return 0
    notes = {members.roll.authority: "holds the authority"}
    until = f"this host; its certificate is good until {_until(members):%Y-%m-%d}"
    notes[members.host] = "; ".join(filter(None, (until, notes.get(members.host))))
    rows = [
        (peer.name, peer.address, peer.port, peer.stream_port, notes.get(peer.name, ""))
        for peer in members.everyone()
    ]
    show.table(("HOST", "ADDRESS", "PORT", "STREAMS", ""), rows)
    return 0


def duration_s(text: str) -> float:
    """Read a time such as 30m; raises `UsageError` for none, and for more than a week."""
    found = re.fullmatch(r"(\d+)([smhd])", text)
    seconds = int(found.group(1)) * UNITS[found.group(2)] if found else 0
    if not 0 < seconds <= LONGEST_TTL_S:
        raise UsageError(f"{text!r} is no time up to 7d", code="bad-ttl", hint="30s, 15m, 2h or 1d")
    return float(seconds)


def _until(members: PeerDirectory) -> datetime.datetime:
    return life((members.pki / OWN).read_bytes())[1]


def _told(arguments: argparse.Namespace, value: dict[str, object], text: str) -> int:
    if arguments.json:
        show.as_json(value)
    else:
        show.line(text)
    return 0
