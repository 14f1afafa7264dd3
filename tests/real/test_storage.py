"""Files of a container that moves: whatever they are, and whatever is done to them meanwhile, they arrive."""

from __future__ import annotations

import pytest

from migrator.command import CommandResult
from tests.lab import cluster as clusters
from tests.lab.host import Host
from tests.lab.lab import Lab
from tests.lab.people import ask, check, inside, migrate, shell, start

pytestmark = pytest.mark.real

SYNC = '[signals]\nedac = false\n\n[migrator]\nbind_mounts = "sync"\n'


def moved(result: CommandResult, target: Host, name: str) -> None:
    """The container moved, and all that it held is right."""
    assert result.status == 0, result.errors
    assert set(ask(target, name).values()) == {"ok"}, ask(target, name)


def test_trees_that_change_all_the_time(lab: Lab) -> None:
    """There and back again: the volume that stayed behind is taken again, though it has files in it."""
    alpha, beta = lab.host("alpha"), lab.host("beta")
    clusters.start(lab, SYNC)
    shell(alpha, "mkdir -p /srv/site && echo page > /srv/site/index && chmod 751 /srv/site")
    options = ["--network=none", "--cap-add=MKNOD", "--env", "KEEPER_DIRECTORY=/data"]
    mounts = ["--volume", "files:/data", "--volume", "/srv/site:/site", "--volume", "memory:/memory"]
    shell(
        alpha, "podman volume create --label shelf=top --opt type=tmpfs --opt device=tmpfs --opt o=size=9m memory"
    )
    features = ["churn", "churned_layer", "image_files", "deleted", "large_deleted", "shared"]
    start(alpha, "files", [*options, *mounts], features)
    shell(alpha, "podman exec files sh -c 'echo volatile > /memory/file'")
    moved(migrate(alpha, "files", "beta"), beta, "files")
    assert inside(beta, "files", "cat", "/site/index", "/memory/file") == "page\nvolatile\n"
    assert "/memory tmpfs" in inside(beta, "files", "cat", "/proc/mounts")
    assert (
        shell(beta, "stat -c %a /srv/site; podman volume inspect memory --format '{{.Labels.shelf}}'")
        == "751\ntop\n"
    )
    moved(migrate(beta, "files", "alpha", "--method", "full"), alpha, "files")
    assert inside(alpha, "files", "cat", "/site/index", "/memory/file") == "page\nvolatile\n"


def test_what_is_there_is_never_overwritten(lab: Lab) -> None:
    alpha, beta = lab.host("alpha"), lab.host("beta")
    clusters.start(lab, SYNC)
    shell(
        alpha, "mkdir -p /srv/mine && echo alpha > /srv/mine/file; echo one > /etc/one; podman volume create taken"
    )
    shell(beta, "mkdir -p /srv/mine && echo beta > /srv/mine/file; echo two > /etc/one; podman volume create taken")
    shell(beta, "echo precious > $(podman volume inspect taken --format '{{.Mountpoint}}')/file")
    alpha.run(["podman", "secret", "create", "only-here", "-"], stdin=b"x")
    options = ["--network=none", "--volume", "taken:/data", "--volume", "/srv/mine:/mine"]
    start(alpha, "mine", [*options, "--volume", "/etc/one:/etc/one:ro", "--secret", "only-here"], ["environment"])
    wanted = {"target-volume-taken", "target-path-taken", "target-file-differs", "target-lacks-secret"}
    row = check(lab, "mine")
    assert not row["movable"]
    refused = migrate(alpha, "mine", "beta")
    assert refused.status == 3, refused.errors
    for reason in (
        "has a volume taken with files",
        "/srv/mine has files",
        "/etc/one",
        "no podman secret only-here",
    ):
        assert reason in refused.errors
    assert wanted == {item["code"] for item in row["targets"][0]["rejections"]}
    assert set(ask(alpha, "mine").values()) == {"ok"}
    assert shell(beta, "cat /srv/mine/file $(podman volume inspect taken --format '{{.Mountpoint}}')/file") == (
        "beta\nprecious\n"
    )


def test_a_volume_of_two_containers_and_a_full_disk(lab: Lab) -> None:
    """A volume that another container still writes stays; a target without room is refused beforehand."""
    alpha, beta = lab.host("alpha"), lab.host("beta")
    clusters.start(lab, SYNC)
    for name in ("first", "second"):
        start(alpha, name, ["--network=none", "--volume", "common:/data"], ["environment"])
    refused = migrate(alpha, "first", "beta")
    assert refused.status == 3
    assert "volume common is also used" in refused.errors
    alpha.run(["podman", "rm", "--force", "--time=0", "second"])
    shell(beta, "mount -t tmpfs -o size=64m tmpfs /var/lib/containers")
    try:
        (target,) = check(lab, "first")["targets"]
        assert "target-lacks-disk" in [item["code"] for item in target["rejections"]]
        refused = migrate(alpha, "first", "beta")
        assert refused.status == 3
        assert "of disk are needed" in refused.errors
    finally:
        shell(beta, "umount --lazy /var/lib/containers")
    moved(migrate(alpha, "first", "beta"), beta, "first")
