"""The hook that heeds bans, the rows that decide, and the words that create a container anew."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from migrator.command import CommandResult
from migrator.errors import PrerequisiteError
from migrator.model import ContainerFacts, Method, MigrationOutcome, NetworkAttachment, Phase
from migrator.protocol.journal import Decision, Fate, Journal, Side
from migrator.runtime import podman, tombstone
from migrator.words import ORIGIN

ROOT = Path(__file__).parents[2]
HOOK = ROOT / "systemd/oci-hooks.d/50-lifeboat.json"
ID = "f3d5a076f4a4c206d74e8ea3fba018b94cddced064afe60b6fcdce92667419bf"
STATE = json.dumps({"ociVersion": "1.2.0", "id": ID, "status": "creating", "pid": 267, "bundle": "/b/" + ID})


def container(**changes: Any) -> ContainerFacts:
    """Return a container."""
    facts = {"id": ID, "name": "web", "image": "i", "image_id": "1", "runtime": "runc", "running": True}
    return ContainerFacts.model_validate({**facts, **changes})


def hook(place: Path, state: str = STATE) -> subprocess.CompletedProcess[str]:
    """Run the hook as a runtime would, with the two directories elsewhere."""
    script = json.loads(HOOK.read_text())["hook"]["args"][2]
    script = script.replace("/var/lib/lifeboat/banned", str(place / "banned"))
    script = script.replace("/run/lifeboat/allowed", str(place / "allowed"))
    return subprocess.run(["/bin/sh", "-c", script], input=state, text=True, capture_output=True, check=False)


def test_the_hook_heeds_a_ban_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tombstone, "ALLOWED", tmp_path / "allowed")
    assert hook(tmp_path).returncode == 0
    tombstone.ban(tmp_path, container())
    banned = hook(tmp_path)
    assert banned.returncode == 1
    assert "moved to another host" in banned.stderr
    for indent in (None, 2):  # runtimes write it on one line, or on many
        for separators in ((",", ":"), (", ", ": ")):
            state = json.dumps(json.loads(STATE), indent=indent, separators=separators)
            assert hook(tmp_path, state).returncode == 1
    assert hook(tmp_path, STATE.replace("f3d5", "0000")).returncode == 0
    assert hook(tmp_path, "").returncode == 0  # a runtime that says nothing is not to be kept from anything
    with tombstone.allowed(ID):
        assert hook(tmp_path).returncode == 0
    assert hook(tmp_path).returncode == 1
    tombstone.lift(tmp_path, container())
    assert hook(tmp_path).returncode == 0


def test_a_ban_holds_for_what_is_created_of_a_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tombstone, "ALLOWED", tmp_path / "allowed")
    words = podman.created_from(("podman", "--log-level=info", "create", "--name", "web", "image"), ID)
    assert words[2:4] == ["create", f"--annotation={ORIGIN}={ID}"]
    annotations = dict([words[3].removeprefix("--annotation=").split("=")])
    other = {**json.loads(STATE), "id": ID[::-1], "annotations": {"a": "b", **annotations, "c": "d"}}
    assert hook(tmp_path, json.dumps(other)).returncode == 0
    tombstone.ban(tmp_path, container())
    for indent in (None, 2):
        assert hook(tmp_path, json.dumps(other, indent=indent)).returncode == 1
    assert hook(tmp_path, json.dumps({**other, "annotations": {"a": ID}})).returncode == 0
    tombstone.open_ban(tmp_path, container())
    assert hook(tmp_path, json.dumps(other)).returncode == 0, "committed: a boot may start it"
    assert tombstone.is_banned(tmp_path, container()), "and it is still to be taken away with the migration"
    tombstone.ban(tmp_path, container())
    assert hook(tmp_path, json.dumps(other)).returncode == 1, "the next migration has a ban of its own"
    tombstone.open_ban(tmp_path, container())
    tombstone.lift(tmp_path, container())
    assert hook(tmp_path, json.dumps(other)).returncode == 0
    assert not list((tmp_path / "banned").iterdir())


def test_the_hook_is_asked_at_every_creation() -> None:
    told = json.loads(HOOK.read_text())
    assert (told["when"], told["stages"]) == ({"always": True}, ["createRuntime"])
    assert told["hook"]["path"] == "/bin/sh"  # nothing of ours that could be missing


def test_without_the_hook_nothing_is_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tombstone, "HOOK_DIRECTORIES", (tmp_path,))
    with pytest.raises(PrerequisiteError, match="could start again"):
        tombstone.check_hook()


def test_the_first_fate_wins_and_an_epoch_only_grows(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    journal.begin("m", Side.TARGET, "web", "{}")
    assert journal.decide("m", Decision.COMMIT) is Decision.COMMIT
    assert journal.seal("m", Fate.YIELD) is Fate.YIELD
    assert journal.seal("m", Fate.FALL_BACK) is Fate.YIELD
    for epoch in (3, 2):
        journal.learn_epoch(ID, epoch)
    assert journal.epoch(ID) == 3
    assert journal.epoch("another") == 0


def test_what_is_not_settled_stays_unfinished(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    journal.begin("m", Side.SOURCE, "web", "{}")
    outcome = MigrationOutcome(
        migration="m", container="web", source="a", target="b", method=Method.LAZY, phase=Phase.LOST
    )
    journal.finish(outcome, settled=False)
    (entry,) = journal.entries(unfinished=True)
    assert (entry.outcome, entry.settled) == (outcome, False)
    journal.finish(outcome)
    assert journal.entries(unfinished=True) == ()


def created(words: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Return the command that creates a container anew which was created with these words."""
    inspected = json.dumps([{"Config": {"CreateCommand": words}}])
    monkeypatch.setattr(podman, "run", lambda argv, **_: CommandResult(tuple(argv), 0, inspected, ""))
    net = NetworkAttachment(
        network="lan", driver="macvlan", interface="eth0", mac="02:00:00:00:00:01", addresses=("10.0.0.5/24",)
    )
    return podman.create_argv("web", container(networks=(net,)))


def test_a_container_is_created_by_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["podman", "run", "--detach", "--network", "lan", "--ip", "10.0.0.5", "image", "sleep", "1"]
    assert created(words, monkeypatch) == (
        "podman", "create", "--name", "web", "--mac-address", "02:00:00:00:00:01",
        "--network", "lan", "--ip", "10.0.0.5", "image", "sleep", "1",
    )  # fmt: skip
    words = [
        "podman",
        "run",
        "--name=web",
        "--ipc=host",
        "--network",
        "lan:ip=10.0.0.5,mac=02:00:00:00:00:01",
        "image",
    ]
    assert created(words, monkeypatch) == ("podman", "create", *words[2:])
    words = ["podman", "run", "-d", "--name", "web", "--network", "lan", "image"]
    assert created(words, monkeypatch)[:6] == (
        "podman", "create", "--ip", "10.0.0.5", "--mac-address", "02:00:00:00:00:01",
    )  # fmt: skip
    again = podman.created_from(("podman", "create", "--name=web", "--ip", "10.0.0.5", "image"), ID)
    assert not any(ORIGIN in word for word in created(again, monkeypatch)), "it was of the last migration"
    with pytest.raises(PrerequisiteError, match="how web was created"):
        created([], monkeypatch)
