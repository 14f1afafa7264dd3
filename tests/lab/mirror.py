"""The package mirror and the keyring, as this machine's own apt uses them."""

from __future__ import annotations

from pathlib import Path

from migrator import command
from migrator.errors import PrerequisiteError

KEYRINGS = ("debian-archive-keyring.gpg", "debian-archive-keyring.pgp")
"""Its names in Debian 12 and 13, in /usr/share/keyrings."""


def mirror() -> str:
    """Return the address of the Debian mirror in the machine's apt settings; raises when there is none."""
    listed = command.run(
        ["apt-get", "indextargets", "--format", "$(ORIGIN)|$(REPO_URI)|$(RELEASE)"], timeout_s=60, check=False
    )
    for line in sorted(listed.output.splitlines()):
        origin, _, rest = line.partition("|")
        address, _, release = rest.partition("|")
        if origin == "Debian" and not release.endswith("-security"):
            return address.rstrip("/")
    raise PrerequisiteError(
        "apt on this machine knows no Debian mirror",
        code="lab-no-mirror",
        hint="add Debian's archive to /etc/apt/sources.list.d",
    )


def keyring() -> Path:
    """Return Debian's keyring; it has to know the keys of Debian 13, which sign trixie and forky."""
    for name in KEYRINGS:
        path = Path("/usr/share/keyrings") / name
        if path.exists():
            return path
    raise PrerequisiteError(
        "Debian's archive keyring is missing",
        code="lab-keyring-missing",
        hint="apt-get install debian-archive-keyring",
    )


def sources(suite: str, criu_suite: str) -> list[str]:
    """Return the lines of a sources list; only forky may be past the validity date of its Release file."""
    signed = f"signed-by={keyring()}"
    address = mirror()
    return [
        f"deb [{signed}] {address} {suite} main",
        f"deb [{signed} check-valid-until=no] {address} {criu_suite} main",
    ]
