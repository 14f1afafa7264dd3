"""`./run install` and `./run uninstall` on a host, as an administrator would do it."""

from __future__ import annotations

import tarfile
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.lab.host import Host
from tests.lab.install import LEFT_OVER, SOURCES
from tests.lab.lab import Lab
from tests.lab.namespaces import wait_until
from tests.lab.settings import CHECKOUT

pytestmark = pytest.mark.real

OFFLINE = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/root/wheels"}
PLACES = ("/usr/lib/lifeboat", "/usr/bin/lifeboat", "/usr/sbin/lifeboatd")


def exists(host: Host, path: str) -> bool:
    """Tell whether a path is there, without following a link out of the host."""
    return host.run(["test", "-e", path], check=False).status == 0


def carry_checkout(lab: Lab, host: Host) -> None:
    """Put a clone of the project and its wheels on the host, which has no way to the Internet."""
    archive = host.path("/root/lifeboat.tar")
    with tarfile.open(archive, "w") as tar:
        for source in SOURCES:
            if (CHECKOUT / source).exists():
                tar.add(CHECKOUT / source, source, filter=without_leftovers)
        tar.add(wheels(lab), "../wheels")
    host.run(["mkdir", "-p", "/root/lifeboat", "/root/wheels"])
    host.run(["tar", "-xf", "/root/lifeboat.tar", "--absolute-names", "-C", "/root/lifeboat"])


def forget_packages(host: Host) -> None:
    """Let apt know at once that there is nothing to be had, for which it would wait without a network."""
    host.run(["find", "/etc/apt/sources.list", "/etc/apt/sources.list.d", "-type", "f", "-delete"], check=False)


def wheels(lab: Lab) -> Path:
    """Return where the wheels are that the lab's own installation was made of."""
    return next(path / "wheels" for layer in lab.state.layers if ((path := Path(layer).parent) / "wheels").exists())


def without_leftovers(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out what building left among the sources."""
    left = any(fnmatch(part, pattern) for part in Path(member.name).parts for pattern in LEFT_OVER)
    return None if left else member


def test_a_host_can_be_installed_and_cleared(lab: Lab) -> None:
    host = lab.host("beta")
    carry_checkout(lab, host)
    forget_packages(host)
    host.write("/etc/lifeboat/lifeboat.toml", "# mine\n")
    host.run(["/root/lifeboat/run", "uninstall"])
    assert [path for path in PLACES if exists(host, path)] == []
    assert host.read("/etc/lifeboat/lifeboat.toml") == "# mine\n"

    installed = host.run(["/root/lifeboat/run", "install"], env=OFFLINE, timeout_s=300)
    assert "going on without a C compiler" in installed.errors  # the host has none, nor a way to get one
    assert [path for path in PLACES if not exists(host, path)] == []
    assert "usage" in host.run(["lifeboat", "--help"]).output.lower()
    shipped = sorted(path.name for path in (CHECKOUT / "policies").glob("*.toml"))
    assert host.run(["ls", "/usr/lib/lifeboat/policies"]).output.split() == shipped
    assert host.run(["stat", "-c", "%a", "/etc/lifeboat/pki"]).output.strip() == "700"
    for unit in (CHECKOUT / "systemd").glob("*.service"):
        host.run(["systemctl", "cat", unit.name])
        host.run(["systemd-analyze", "verify", "--man=no", f"/usr/lib/systemd/system/{unit.name}"])
    does_not_start_in_vain(host)
    leaves_what_works(host)
    keeps_what_is_needed(host)
    lab.renew("beta")


def does_not_start_in_vain(host: Host) -> None:
    """Settings that are wrong now are as wrong in a second: who looks finds one sentence, not a hundred starts."""
    host.write("/etc/lifeboat/lifeboat.toml", "[migrator]\nat_once = 'many'\n")
    host.run(["systemctl", "daemon-reload"])
    host.run(["systemctl", "start", "lifeboatd"], check=False, timeout_s=60)
    look = ["systemctl", "show", "lifeboatd", "--value", "-p", "ActiveState", "-p", "NRestarts"]
    wait_until(lambda: "failed" in host.run(look).output.split(), "lifeboatd does not give up")
    assert sorted(host.run(look).output.split()) == ["0", "failed"]
    assert "at_once" in host.run(["journalctl", "-u", "lifeboatd", "-n", "5", "-o", "cat"]).output
    host.write("/etc/lifeboat/lifeboat.toml", "# mine\n")
    host.run(["systemctl", "reset-failed", "lifeboatd"])


def leaves_what_works(host: Host) -> None:
    """An upgrade that fails has changed nothing."""
    venv = host.run(["readlink", "/usr/lib/lifeboat/venv"]).output
    failed = host.run(["/root/lifeboat/run", "install"], env={"PIP_NO_INDEX": "1"}, timeout_s=300, check=False)
    assert failed.status == 1
    assert "nothing was changed" in failed.errors
    assert host.run(["readlink", "/usr/lib/lifeboat/venv"]).output == venv
    assert host.run(["ls", "/usr/lib/lifeboat"]).output.split() == ["policies", "venv", venv.strip()]
    assert "usage" in host.run(["lifeboat", "--help"]).output.lower()


def keeps_what_is_needed(host: Host) -> None:
    """Nothing is taken from under a migration, and nothing that keeps a second copy from starting."""
    host.run(["mkdir", "-p", "/run/lifeboat/migrations/0a0a", "/etc/systemd/system/web.service.d"])
    for verb in ("install", "uninstall"):
        refused = host.run(["/root/lifeboat/run", verb], check=False)
        assert refused.status == 1
        assert f"no {verb} while migrations are unfinished: 0a0a" in refused.errors
    host.run(["rmdir", "/run/lifeboat/migrations/0a0a"])
    host.write("/var/lib/lifeboat/banned/0b0b", "")  # all that a boot has left of a migration
    refused = host.run(["/root/lifeboat/run", "uninstall"], check=False)
    assert "no uninstall while migrations are unfinished: 0b0b" in refused.errors
    host.run(["rm", "/var/lib/lifeboat/banned/0b0b"])
    host.write(moved := "/etc/systemd/system/web.service.d/50-lifeboat-moved.conf", "")
    refused = host.run(["/root/lifeboat/run", "uninstall", "--purge"], check=False)
    assert refused.status == 1
    assert moved in refused.errors
    assert exists(host, "/usr/bin/lifeboat")
    host.run(["/root/lifeboat/run", "uninstall", "--purge", "--force"])
    left = (*PLACES, moved, "/etc/lifeboat", "/var/lib/lifeboat")
    assert [path for path in left if exists(host, path)] == []


def test_run_says_in_one_sentence_that_it_needs_root(lab: Lab) -> None:
    host = lab.host("beta")
    mode = host.run(["stat", "-c", "%a", "/root"]).output.strip()
    carry_checkout(lab, host)
    host.run(["chmod", "a+x", "/root"])
    host.run(["chmod", "-R", "a+rX", "/root/lifeboat"])
    refused = host.run(["setpriv", "--reuid=65534", "--clear-groups", "/root/lifeboat/run", "install"], check=False)
    assert refused.status == 1
    assert refused.errors == "run: this needs root; try: sudo ./run install\n"
    host.run(["rm", "-r", "/root/lifeboat", "/root/lifeboat.tar", "/root/wheels"])
    host.run(["chmod", mode, "/root"])
