"""Words that come from a peer and become a directory, a unit, a path or an argument here.

Each has the narrowest pattern that its own program allows. None can begin with a dash (an option), hold a slash
(another directory), or be `.` or `..`.
"""

from __future__ import annotations

import ipaddress
import re
import uuid
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

MOST_BYTES = 1 << 62  # bytes; more is no size but an attempt


def _interface_address(text: str) -> str:
    if text:
        ipaddress.ip_interface(text)
    return text


def _address(text: str) -> str:
    ipaddress.ip_address(text)
    return text


PodmanName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$", max_length=255)]
"""Containers, volumes and networks (libpod/define, NameRegex); the length is what a file's name may have."""

ContainerId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""Podman's full id of a container or pod."""

MigrationId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+$", max_length=64)]
"""A directory below /run/lifeboat, and part of units' names."""

HostName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?$", max_length=253)]
"""As RFC 1123, 2.1 has it."""

IMAGE_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.:/@+-]*")

ImageName = Annotated[str, StringConstraints(pattern=rf"^({IMAGE_NAME.pattern})?$", max_length=1024)]
"""Registry, repository, tag and digest; empty when a container was made from a directory."""

ImageId = Annotated[str, StringConstraints(pattern=r"^[a-f0-9]*$", max_length=64)]

InterfaceName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,14}$")]
"""IFNAMSIZ is 16 with the closing zero (include/uapi/linux/if.h)."""

MacAddress = Annotated[str, StringConstraints(pattern=r"^([0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5})?$")]

InterfaceAddress = Annotated[str, AfterValidator(_interface_address), StringConstraints(max_length=64)]
"""With prefix length: 10.88.0.5/24."""

Address = Annotated[str, AfterValidator(_address), StringConstraints(max_length=64)]

DnsOption = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]*(:[0-9]+)?$", max_length=64)]
"""Of resolv.conf(5)."""

HostEntry = Annotated[
    str, StringConstraints(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*:[0-9a-fA-F:.]+$", max_length=320)
]
"""A name and its address, as podman's --add-host takes them."""

Port = Annotated[int, Field(ge=1, le=65535)]

Bytes = Annotated[int, Field(ge=0, le=MOST_BYTES)]

QuadletName = Annotated[
    str,
    StringConstraints(
        pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*\.(container|volume|network)(\.d/[a-zA-Z0-9][a-zA-Z0-9_.-]*\.conf)?$",
        max_length=255,
    ),
]
"""A file of Quadlet, or a drop-in of one; no template."""

UnitName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*\.service$", max_length=255)]

Text = Annotated[str, StringConstraints(max_length=4096)]
"""A path or a sentence that is shown or compared, never opened."""

Milliseconds = Annotated[str, StringConstraints(pattern=r"^([0-9]{1,12}ms)?$")]


def new_id() -> str:
    """Return a new migration's id."""
    return uuid.uuid4().hex[:12]
