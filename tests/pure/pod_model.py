"""A model of one pod of two members between two hosts, explored exhaustively: never half a pod by our own doing.

Each member is a migration as tests/pure/protocol_model.py has it; what does not concern the other one is left out:
preparation, network, bans. What is modelled is the one word for all, who waits for whom, and that every deed is
done member by member, with a death possible between any two of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from migrator.protocol.journal import Decision, Fate, one_word
from migrator.protocol.messages import Standing
from migrator.protocol.steps import (
    Reply,
    SourceStep,
    answer_abort,
    answer_commit,
    answer_yield,
    may_give_back,
    may_release,
    may_resume,
    may_take_over,
    source_step,
    with_its_pod,
)

MEMBERS = (0, 1)


class Member(NamedTuple):
    """One member on both hosts."""

    # the source
    row: Decision | None = None
    fate: Fate | None = None
    tree: str = "run"  # run, frozen, gone
    shim: bool = True
    released: bool = False  # podman does not know it any more
    provided: bool = False  # this daemon knows that the target needs nothing more for it
    # the target
    t_row: Decision | None = None
    t_fate: Fate | None = None
    t_full: bool = False  # journalled: memory and files are there
    t_tree: str = "none"  # none, silent, part, full, stopped, cold
    t_done: bool = False  # settled there


class State(NamedTuple):
    """The pod, and who lives."""

    members: tuple[Member, ...] = (Member(), Member())
    daemon: bool = True
    began: bool = True  # this daemon is the one that began
    met: bool = False  # and it has heard that all are restored
    source: bool = True  # the hosts
    target: bool = True
    deaths: int = 0

    def but(self, number: int, **changes: Any) -> State:
        """Return a state in which something of one member is different."""
        found = list(self.members)
        found[number] = found[number]._replace(**changes)
        return self._replace(members=tuple(found))

    def all_but(self, **changes: Any) -> State:
        """Return a state in which something of all members is different."""
        return self._replace(members=tuple(item._replace(**changes) for item in self.members))


def worded(words: Sequence[str | None], wanted: str) -> list[str]:
    """Return what stands for each member after one transaction."""
    return [one_word(words, wanted)] * len(words)


def written(state: State, key: str, word: str) -> State:
    """A daemon writes a decision or a fate, for all."""
    words = worded([getattr(item, key) for item in state.members], word)
    kind = Fate if key.endswith("fate") else Decision
    members = zip(state.members, words, strict=True)
    changed: list[tuple[Member, dict[str, Any]]] = [(item, {key: kind(said)}) for item, said in members]
    return state._replace(members=tuple(item._replace(**change) for item, change in changed))


def standing(state: State, number: int) -> Standing:
    """Return how a member stands at the target, as its daemon finds it there, also after a restart."""
    item = state.members[number]
    found = (
        (item.t_done and item.t_fate is Fate.YIELD, Standing.YIELDED),
        (item.t_done and item.t_fate is Fate.FALL_BACK, Standing.FELL_BACK),
        (item.t_done and item.t_row is Decision.ABORT, Standing.ABORTED),
        (item.t_done, Standing.COMPLETE),
        (item.t_row is Decision.ABORT, Standing.ABORTED),
        (item.t_full, Standing.DRAINED),
        (item.t_tree == "part", Standing.DRAINING),
        (item.t_tree == "silent", Standing.RESTORED),
        (item.t_row is Decision.COMMIT, Standing.LOST),
        (True, Standing.PARKED),
    )
    own = next(standing for holds, standing in found if holds)
    lost = any(other.t_row is Decision.COMMIT and other.t_tree in ("none", "stopped") and not other.t_full
               for other in state.members)  # fmt: skip
    return with_its_pod(own, item.t_fate, lost=lost)


def looked(state: State, number: int) -> State:
    """A target that is asked looks first, and freezes what does not belong to it before it says so."""
    astray = standing(state, number) in (Standing.LOST, Standing.YIELDED, Standing.FALLING_BACK)
    runs = state.members[number].t_tree in ("part", "full")
    return state.but(number, t_tree="stopped") if state.target and astray and runs else state


def steps(state: State, limit: int) -> Iterator[tuple[str, State]]:
    """Return every step that may come next, with a name; at most `limit` deaths."""
    for number in MEMBERS:
        for name, after in (*_source(state, number), *_target(state, number)):
            yield f"{name} {number}", after
    yield from _together(state)
    yield from _human(state)
    if not state.daemon and state.source:
        yield "source daemon starts", state._replace(daemon=True, began=False)
    if not state.target:
        yield "target host boots", state._replace(target=True)
    if state.deaths < limit:
        for name, after in _deaths(state):
            yield name, after._replace(deaths=state.deaths + 1)


def _together(state: State) -> Iterator[tuple[str, State]]:
    """What waits for all."""
    undecided = any(item.row is None for item in state.members)
    restored = state.target and all(standing(state, number) is Standing.RESTORED for number in MEMBERS)
    if state.began and restored and all(item.tree == "frozen" for item in state.members):
        yield "all are restored", state._replace(met=True)
    if state.began and state.met:
        yield "COMMIT", written(state, "row", Decision.COMMIT)
    if state.daemon and not state.began and undecided:
        yield "source recovers", written(state, "row", Decision.ABORT)


def _source(state: State, number: int) -> Iterator[tuple[str, State]]:
    item = state.members[number]
    if item.shim and item.row is None:  # overdue, or its daemon is gone: it writes a row of its own
        yield "shim gives up", _given_back(state.but(number, row=Decision.ABORT), number)
    if not state.daemon:
        return
    if state.began and item.row is None and item.tree == "run" and item.shim:
        yield "freeze", state.but(number, tree="frozen")
    if state.began and item.row is None:
        yield "source aborts", written(state, "row", Decision.ABORT)
    if item.row is not None and may_give_back(item.row) and item.tree == "frozen":
        yield "source gives back", _given_back(state, number)
    if (
        item.row is not Decision.COMMIT
        or item.released
        or item.fate not in (None, Fate.RELEASE)
        or not state.target
    ):
        return
    step = source_step(item.row, standing(state, number), patient=True)
    if step is SourceStep.TELL:
        yield "target hears the commit", _hears(state, number)
    if step is SourceStep.RELEASE and not item.provided:
        yield "source knows it provided", state.but(number, provided=True)
    known = [str(other) for other in MEMBERS if state.members[other].provided]
    if step is SourceStep.RELEASE and may_release(item.fate, known, [str(other) for other in MEMBERS]):
        after = written(state, "fate", Fate.RELEASE)
        if after.members[number].fate is Fate.RELEASE:
            yield "source releases", after.but(number, tree="gone", released=True, shim=False)


def _given_back(state: State, number: int) -> State:
    tree = "run" if state.members[number].tree == "frozen" else state.members[number].tree
    return state.but(number, tree=tree, shim=False)


def _hears(state: State, number: int) -> State:
    if answer_commit(standing(state, number), state.members[number].t_row) is not Reply.DO:
        return state
    after = written(state, "t_row", Decision.COMMIT)
    if after.members[number].t_row is Decision.COMMIT and after.members[number].t_tree == "silent":
        return after.but(number, t_tree="part")
    return after


def _target(state: State, number: int) -> Iterator[tuple[str, State]]:
    item = state.members[number]
    if not state.target or item.t_done:
        return
    now = standing(state, number)
    still = all(other.tree == "frozen" for other in state.members)
    if item.t_tree == "none" and item.t_row is None and still and item.row is None:
        yield "target restores", state.but(number, t_tree="silent")
    told = state.daemon and item.row is Decision.ABORT
    gone = not state.source and now is Standing.PARKED
    if (told or gone) and answer_abort(now, item.t_row) is Reply.DO and item.t_row is None:
        yield "target aborts", written(state, "t_row", Decision.ABORT)
    if item.t_row is Decision.ABORT:
        yield "target clears away", state.but(number, t_tree="none", t_done=True)
    if item.t_row is Decision.COMMIT and now is Standing.RESTORED:
        yield "target goes on with the commit", state.but(number, t_tree="part")
    if item.t_tree == "part" and item.tree != "frozen":
        yield "sink gives up", state.but(number, t_tree="stopped")
    if item.t_tree == "part" and item.tree == "frozen" and now is Standing.DRAINING:
        yield "drain", state.but(number, t_tree="full", t_full=True)
    if (after := looked(state, number)) != state:
        yield "target freezes it", after
    if item.t_fate is Fate.YIELD:
        yield "target clears away", state.but(number, t_tree="none", t_done=True)
    if item.t_fate is Fate.FALL_BACK:
        yield "target starts it anew", state.but(number, t_tree="cold", t_done=True)
    all_there = all(standing(state, other) in (Standing.DRAINED, Standing.COMPLETE) for other in MEMBERS)
    if now is Standing.DRAINED and (item.released or (not state.source and all_there)):
        yield "target completes", state.but(number, t_done=True)


def _human(state: State) -> Iterator[tuple[str, State]]:
    if state.daemon and all(item.row is Decision.COMMIT for item in state.members):
        yield from _resumes(state)
    if state.target and not state.source:
        words = [
            may_take_over(standing(state, n), state.members[n].t_row, None, declared_dead=True) for n in MEMBERS
        ]
        if not any(words) and not any(item.t_done for item in state.members):
            yield "human takes over", written(written(state, "t_row", Decision.COMMIT), "t_fate", Fate.FALL_BACK)


def _resumes(state: State) -> Iterator[tuple[str, State]]:
    if any(item.fate is Fate.RELEASE for item in state.members):
        return
    for number in MEMBERS:
        item = state.members[number]
        if item.fate is Fate.RESUME and item.tree == "frozen":
            yield f"human resumes {number}", state.but(number, tree="run", shim=False)
        if state.target and answer_yield(standing(state, number), item.t_row, item.t_fate) is Reply.DO:
            yield f"human asks the target to yield {number}", written(looked(state, number), "t_fate", Fate.YIELD)
    for number in MEMBERS:
        state = looked(state, number)
    said = [standing(state, number) if state.target else None for number in MEMBERS]
    gone = not state.target and not any(item.t_full for item in state.members)
    if not any(may_resume(Decision.COMMIT, word, declared_dead=gone) for word in said):
        yield "human seals", written(state, "fate", Fate.RESUME)


def _deaths(state: State) -> Iterator[tuple[str, State]]:
    if state.daemon:
        yield "source daemon dies", state.all_but(provided=False)._replace(daemon=False, began=False, met=False)
    for number in MEMBERS:
        item = state.members[number]
        if item.shim:
            yield f"source shim dies {number}", state.but(number, shim=False)
        if item.t_tree == "part":
            yield f"sink dies {number}", state.but(number, t_tree="stopped")
        if item.t_tree == "silent":
            yield f"target shim dies {number}", state.but(number, t_tree="none")
    if state.source:
        dead = state.all_but(tree="gone", shim=False, provided=False)
        yield "source host dies", dead._replace(source=False, daemon=False, began=False, met=False)
    if state.target:
        yield "target host dies", state.all_but(t_tree="none")._replace(target=False)


def wrong(state: State) -> str:
    """Return which invariant a state breaks; empty when it breaks none."""
    here = [item.tree == "run" and item.row is not None for item in state.members]
    there = [item.t_tree in ("part", "full", "cold") for item in state.members]
    for one, other in ((0, 1), (1, 0)):
        if here[one] and there[one]:
            return "two open gates"
        if here[one] and there[other]:
            return "one member here, the other there"
        if here[one] and state.members[other].released:
            return "one member goes on, and the other was thrown away"
        if there[one] and state.members[other].t_row is Decision.ABORT:
            return "one member came, and the other never will"
        if state.members[one].released and not state.members[other].t_full:
            return "one member was thrown away before the other was there"
    return ""


def place(state: State) -> str:
    """Return where a pod that has come to rest is, as a whole; empty when it is none of them."""
    if all(item.tree == "run" and item.t_tree == "none" for item in state.members):
        return "source"
    if all(item.t_done and item.t_tree == "full" and item.tree == "gone" for item in state.members):
        return "target"
    if not all(item.t_done or (item.t_row is None and item.t_tree == "none") for item in state.members):
        return ""
    if all(item.t_done and item.t_fate is Fate.FALL_BACK for item in state.members):
        return "anew at the target"
    if not state.source and all(item.t_tree == "none" for item in state.members):
        return "lost with its host"
    # A member died with its target when nothing was left of it at the source, as after any migration.
    return "lost with its host" if all(item.t_done and item.t_full for item in state.members) else ""


def explore(limit: int) -> dict[State, tuple[State | None, str]]:
    """Return every reachable state with how it was reached."""
    first = State()
    came: dict[State, tuple[State | None, str]] = {first: (None, "")}
    pending = deque([first])
    while pending:
        state = pending.popleft()
        for name, after in steps(state, limit):
            if after not in came:
                came[after] = (state, name)
                pending.append(after)
    return came
