"""A tree is frozen by its cgroup before what holds it otherwise is killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from migrator.errors import CommandError, ExecutionError
from migrator.network import gate
from migrator.runtime import frozen, runc
from migrator.runtime.cgroup import Cgroup
from migrator.runtime.frozen import FrozenTree, let_go


@pytest.mark.parametrize("ends", [True, False])
def test_who_is_killed_leaves_a_frozen_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, ends: bool) -> None:
    state = tmp_path / "cgroup.freeze"
    state.write_text("0")
    at_kill: list[str] = []
    monkeypatch.setattr(frozen, "LET_GO_S", 0.05)
    monkeypatch.setattr(frozen, "scope_active", lambda _: not ends)
    monkeypatch.setattr(frozen, "end_scope", lambda _: at_kill.append(state.read_text()))
    let_go("scope", lambda: FrozenTree(Cgroup(tmp_path), tmp_path))
    assert at_kill == ([] if ends else ["1"])
    assert state.read_text() == ("0" if ends else "1")


def runc_that_says(place: Path, words: str) -> str:
    """Return the path of a runc that fails."""
    program = place / "runc"
    program.write_text(f"#!/bin/sh\necho '{words}' >&2\nexit 1\n")
    program.chmod(0o700)
    return str(program)


def test_a_tree_that_runc_does_not_know_is_none_and_one_that_nobody_can_tell_of_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = runc_that_says(tmp_path, 'time="2026-01-01T00:00:00Z" level=error msg="container does not exist"')
    assert FrozenTree.seek(unknown, "web") is None
    broken = runc_that_says(tmp_path, "unable to load state: input/output error")
    with pytest.raises(CommandError, match="input/output error"):
        FrozenTree.seek(broken, "web")

    def hang(*_: object, **__: object) -> None:
        raise CommandError("runc state web did not finish within 10 s", code="command-timeout", temporary=True)

    monkeypatch.setattr(runc, "run", hang)
    with pytest.raises(CommandError, match="did not finish"):
        FrozenTree.seek("runc", "web")
    assert FrozenTree.find("runc", "web") is None


@pytest.mark.parametrize("opens", [True, False])
def test_what_runs_behind_a_shut_gate_is_not_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, opens: bool
) -> None:
    state = tmp_path / "cgroup.freeze"
    state.write_text("1")
    shut = [] if opens else [CommandError("nft: netlink: no buffer space", code="command-failed")]

    def open_gate(_: Path) -> None:
        while shut:
            raise shut[0]

    monkeypatch.setattr(gate, "open_gate", open_gate)
    tree = FrozenTree(Cgroup(tmp_path), tmp_path)
    if not opens:
        with pytest.raises(ExecutionError, match="no buffer space") as stuck:
            tree.give_back()
        assert stuck.value.code == "gate-stuck"
        assert state.read_text() == "0", "whatever fails it runs"
        shut.clear()
    tree.give_back()
    assert state.read_text() == "0"
