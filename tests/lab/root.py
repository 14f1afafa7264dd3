"""The shared root file system of all hosts: Debian 13 with systemd, podman, runc and a CRIU that works."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from migrator.errors import ExecutionError
from tests.lab import contained
from tests.lab.cache import cached
from tests.lab.mirror import sources
from tests.lab.settings import CACHE, CRIU_PACKAGES, CRIU_SUITE, ROOT_PACKAGES, SUITE

BUILD_TIMEOUT_S = 1200
FILES = Path(__file__).parent / "root_files"

MASKED_UNITS = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "etcd.service",
    "fstrim.timer",
    "podman-auto-update.timer",
    "podman-restart.service",
    "console-getty.service",
    "getty.target",
    "smartmontools.service",
    "systemd-modules-load.service",
    "systemd-networkd.service",
    "systemd-logind.service",
    "tmp.mount",
)
"""Units that would touch the machine's own devices or terminal, or work beside the tests."""


def pins() -> str:
    """Return apt preferences that take CRIU from forky and nothing else."""
    return (
        f"Package: *\nPin: release n={CRIU_SUITE}\nPin-Priority: -1\n\n"
        f"Package: {' '.join(CRIU_PACKAGES)}\nPin: release n={CRIU_SUITE}\nPin-Priority: 900\n"
    )


def root() -> Path:
    """Return the built root; the mirror's name is no part of its key, as all mirrors carry the same."""
    files = {str(path.relative_to(FILES)): path.read_text() for path in sorted(FILES.rglob("*")) if path.is_file()}
    recipe = json.dumps([SUITE, ROOT_PACKAGES, MASKED_UNITS, pins(), files])
    return cached("root", recipe, build)


def build(target: Path) -> None:
    """Make the root with mmdebstrap in `target`; signatures are checked with the machine's keyring."""
    with tempfile.TemporaryDirectory(prefix="lifeboat-lab-") as name:
        preferences = Path(name) / "preferences"
        preferences.write_text(pins())
        result = contained.run(
            [
                "mmdebstrap",
                "--variant=minbase",
                "--mode=root",
                "--format=directory",
                f"--include={','.join(ROOT_PACKAGES)}",
                '--dpkgopt=path-exclude="/usr/share/man/*"',
                '--dpkgopt=path-exclude="/usr/share/doc/*"',
                '--dpkgopt=path-exclude="/usr/share/locale/*"',
                '--setup-hook=mkdir -p "$1/etc/apt/preferences.d"',
                f"--setup-hook=copy-in {preferences} /etc/apt/preferences.d",
                f"--customize-hook=sync-in {FILES} /",
                f'--customize-hook=chroot "$1" systemctl mask {" ".join(MASKED_UNITS)}',
                '--customize-hook=chroot "$1" systemctl set-default multi-user.target',
                '--customize-hook=rm -f "$1/etc/resolv.conf" "$1/etc/machine-id"',
                '--customize-hook=touch "$1/etc/resolv.conf" "$1/etc/machine-id"',
                SUITE,
                str(target),
                *sources(SUITE, CRIU_SUITE),
            ],
            timeout_s=BUILD_TIMEOUT_S,
        )
    log = CACHE / "root.log"
    log.write_text(result.output + result.errors)
    if result.status != 0:
        raise ExecutionError(
            f"the lab's root cannot be built: {failure(result.errors)}", code="lab-root", hint=f"see {log}"
        )


def failure(said: str) -> str:
    """Return the first complaint of mmdebstrap or apt; the last lines only say that it gave up."""
    complaints = [line for line in said.splitlines() if line.startswith(("E:", "Err:", "W:", "rsync"))]
    return complaints[0] if complaints else "no message"
