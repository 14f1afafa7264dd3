"""The gate: a packet filter in a container's network namespace that keeps it silent until it may speak.

Two nftables tables, one for IP (families `inet`) and one for ARP, whose chains drop everything in both
directions. Neighbour discovery, IGMP and MLD are IP and pass the same hooks. The tables need no interface,
so on the target they are there before podman's network helper creates one: nobody can hear, or resolve,
the restored copy before the commit.
"""

from __future__ import annotations

import ipaddress
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from migrator.command import give_up, run, spawn
from migrator.errors import CommandError

TABLE = "lifeboat_gate"
HOST_NAMESPACE = Path("/proc/1/ns/net")

SHUT = f"""\
table inet {TABLE} {{
    chain hear {{ type filter hook input priority -400; policy drop; iif "lo" accept; }}
    chain speak {{ type filter hook output priority -400; policy drop; oif "lo" accept; }}
}}
table arp {TABLE} {{
    chain hear {{ type filter hook input priority -400; policy drop; }}
    chain speak {{ type filter hook output priority -400; policy drop; }}
}}
"""
"""Loopback stays open: what the processes of one container say to each other is nobody else's."""

HEARS_ITSELF = 'iif "lo" accept; '


def shut_rules(*, loopback: bool = True) -> str:
    """Return the rules of a shut gate; without `loopback` nothing that is said over it is heard either.

    Members of a pod talk to each other that way, and are written down and brought up one after another: an end of a
    connection that is not there yet would reset the other. What is sent is still let go, for a sender to which the
    filter says no gets an error.
    """
    return SHUT if loopback else SHUT.replace(HEARS_ITSELF, "")


LEFT = f"""\
insert rule inet {TABLE} speak {{family}} saddr {{address}} accept
insert rule inet {TABLE} hear {{family}} daddr {{address}} accept
"""
LEFT_ARP = f"insert rule arp {TABLE} speak arp saddr ip {{address}} accept\ninsert rule arp {TABLE} hear accept\n"
"""For an address that stays behind: its connections are ended aloud."""

OPEN = "".join(f"add table {family} {TABLE}\ndelete table {family} {TABLE}\n" for family in ("inet", "arp"))
"""Adding first makes deleting idempotent on every kernel; the word `destroy` would need Linux 6.3."""

_TIMEOUT_S = 10


class Porter:
    """An nft that stands ready in a namespace, so that a word to it costs the freeze no start of a program.

    One porter does one deed. When it is not there any more, the deed is done without it.
    """

    def __init__(self, namespace: Path, *, loopback: bool = True) -> None:
        """`loopback`: see `shut_rules`."""
        self._namespace = namespace
        self._shut = OPEN + shut_rules(loopback=loopback)
        self._nft = spawn(_enter(namespace, "nft", "-f", "-"), stdin=subprocess.PIPE)

    def shut(self) -> None:
        """Silence the namespace; raises `CommandError` as `shut` does."""
        self._say(self._shut)

    def open_gate(self) -> None:
        """Let the namespace speak; raises `CommandError` as `open_gate` does."""
        self._say(OPEN)

    def dismiss(self) -> None:
        """The deed is not needed any more; quiet when it was done."""
        give_up(self._nft)

    def _say(self, script: str) -> None:
        try:
            self._nft.communicate(script.encode(), timeout=_TIMEOUT_S)
        except (OSError, ValueError, subprocess.TimeoutExpired):
            self.dismiss()
        if self._nft.returncode != 0:
            _nft(self._namespace, script)


def shut(namespace: Path, *, loopback: bool = True) -> None:
    """Silence the network namespace at this path; idempotent. `loopback`: see `shut_rules`."""
    _nft(namespace, OPEN + shut_rules(loopback=loopback))


def let_speak(namespace: Path, addresses: Sequence[str]) -> None:
    """Let a shut gate pass what these addresses have to say; all others stay silent."""
    script = ""
    for address in addresses:
        version = ipaddress.ip_address(address).version
        script += LEFT.format(family="ip" if version == 4 else "ip6", address=address)
        script += LEFT_ARP.format(address=address) if version == 4 else ""
    _nft(namespace, script)


def open_gate(namespace: Path) -> None:
    """Let the network namespace speak again; idempotent."""
    _nft(namespace, OPEN)


def is_shut(namespace: Path) -> bool:
    """Say whether the gate stands in this namespace."""
    listed = run(_enter(namespace, "nft", "list", "tables"), timeout_s=_TIMEOUT_S)
    return TABLE in listed.output


def _nft(namespace: Path, script: str) -> None:
    try:
        run(_enter(namespace, "nft", "-f", "-"), timeout_s=_TIMEOUT_S, stdin=script.encode())
    except CommandError as error:
        raise CommandError(
            f"the network gate of {namespace} could not be changed: {error.message}",
            code="gate-failed",
            hint="nftables with the inet and arp families is needed",
        ) from error


def _enter(namespace: Path, *argv: str) -> list[str]:
    """Return a command in a namespace, never in the host's own: shut there, the gate would cut off the host."""
    with suppress(OSError):  # nsenter says it better
        if namespace.stat().st_ino == HOST_NAMESPACE.stat().st_ino:
            raise CommandError(f"{namespace} is the host's own network", code="gate-of-host")
    return ["nsenter", f"--net={namespace}", *argv]
