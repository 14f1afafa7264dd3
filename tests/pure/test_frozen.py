"""A tree is frozen by its cgroup before what holds it otherwise is killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from migrator.runtime import frozen
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
