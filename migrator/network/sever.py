"""End connections whose address does not move along, so that both ends know at once.

An address of a host's own bridge means another place on another host: a connection through it would hang until
somebody's patience ends. The kernel ends a TCP connection without its process (SOCK_DESTROY, Linux 4.5, by `ss
--kill`): the peer gets a reset, the process an error at its next call.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from pathlib import Path

from migrator.command import run
from migrator.model import NetworkAttachment

COMMON_DRIVERS = ("macvlan", "ipvlan")
"""Networks on a segment that both hosts are on, so that an address moves along."""

TIMEOUT_S = 10.0


def left_behind(networks: Iterable[NetworkAttachment]) -> tuple[str, ...]:
    """Return the addresses, without prefix length, that do not move along with a container."""
    return all_addresses(network for network in networks if network.driver not in COMMON_DRIVERS)


def moved_along(networks: Iterable[NetworkAttachment]) -> tuple[str, ...]:
    """Return the addresses, without prefix length, that do."""
    return all_addresses(network for network in networks if network.driver in COMMON_DRIVERS)


def all_addresses(networks: Iterable[NetworkAttachment]) -> tuple[str, ...]:
    """Return all addresses of networks, without prefix length."""
    return tuple(str(ipaddress.ip_interface(address).ip) for network in networks for address in network.addresses)


def sever(namespace: Path, addresses: Sequence[str]) -> None:
    """End the TCP connections of these addresses in a network namespace, but those of a container with itself."""
    for address in addresses:
        argv = ["nsenter", f"--net={namespace}", "ss", "--kill", "--tcp", "--numeric", "state", "connected"]
        run([*argv, "src", address, "and", "not", "dst", address], timeout_s=TIMEOUT_S)
