"""Where the lab keeps its things and what its hosts are made of; change nothing here while a lab is up."""

from __future__ import annotations

import os
from pathlib import Path

CACHE = Path(os.environ.get("LIFEBOAT_LAB_CACHE", "/var/cache/lifeboat-lab"))
"""Built roots, images and installations. Anything in it may be removed while no lab is up."""

DATA = Path(os.environ.get("LIFEBOAT_LAB_DATA", "/var/lib/lifeboat-lab"))
"""Files of running hosts; has to be on a file system that may carry an overlay's upper directory."""

STATE = Path("/run/lifeboat-lab")
"""One directory per running lab, so that another process can enter it or clear it away."""

CHECKOUT = Path(__file__).resolve().parents[2]

HOST_NAMES = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta")

SUITE = "trixie"
CRIU_SUITE = "forky"
CRIU_PACKAGES = (
    "criu",
    "libcriu2",
    "libcompel1",
    "python3-pycriu",
    "libnl-3-200",
    "libnl-genl-3-200",
    "libnl-route-3-200",
    "libnet9",
)
"""CRIU 4.1 of Debian 13 fails on kernels >= 6.16 (SO_PASSCRED on inet sockets); these come from forky."""

ROOT_PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "podman",
    "runc",
    "netavark",
    "aardvark-dns",
    "catatonit",
    "uidmap",
    "nftables",
    "iptables",
    "iproute2",
    "iputils-ping",
    "iputils-arping",
    "tcpdump",
    "rsync",
    "etcd-server",
    "openssh-server",
    "openssh-client",
    "python3",
    "python3-venv",
    "smartmontools",
    "procps",
    "ca-certificates",
    "criu",
)

CLIENT_NUMBER = 254
"""The client's place in the lab's networks."""


def ipv4(number: int) -> str:
    """Return the IPv4 address of host `number` (1 is alpha); all hosts share 10.77.0.0/24."""
    return f"10.77.0.{number}"


def ipv6(number: int) -> str:
    """Return the IPv6 address of host `number`; all hosts share fd77::/64."""
    return f"fd77::{number:x}"
