"""A model of one migration between two hosts, explored exhaustively.

The network is a set of messages that only grows: what was said may be heard at any later time, any number of
times, in any order, or never, which covers loss, delay, doubling and reordering. Each party may die at any step
and come back: both daemons, both shims, the page sink, both hosts; the disks (journals, the ban on starting)
survive a host, all else does not. A restart policy, or somebody's `podman start`, tries to start either copy
whenever podman would let it. A human may resume, or take over, whenever `migrator.protocol.steps` allows it.

All decisions are those of `migrator.protocol.steps`; what is modelled here is what the deeds do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from migrator.protocol.journal import Decision, Fate
from migrator.protocol.messages import DecisionTold, Standing
from migrator.protocol.steps import (
    BEFORE_RESTORE,
    Claim,
    Reply,
    SourceStep,
    Step,
    answer_abort,
    answer_commit,
    answer_proposal,
    answer_yield,
    claim_after_reboot,
    may_give_back,
    may_resume,
    may_take_over,
    next_step,
    source_step,
)

EPOCH = 1
PROPOSE, IMAGES, RESTORED, COMMIT, WITHDRAW = 1, 2, 4, 8, 16  # messages, as bits


class State(NamedTuple):
    """Everything there is; letters stand for where a copy of the container is."""

    # the source's disk
    s_row: Decision | None = None
    s_fate: Fate | None = None
    s_banned: bool = False  # podman may not start it
    s_record: bool = True  # podman knows it
    s_settled: bool = False
    # the source's memory
    s_host: bool = True
    s_daemon: bool = True
    s_shim: bool = False  # holds the parked and then frozen container
    s_tree: str = "run"  # run, frozen, gone
    s_began: bool = False  # this daemon is the one that began the migration
    # the target's disk
    t_known: bool = False  # the journal has an entry
    t_parked: bool = False  # journalled, or found undecided by a daemon that did not reserve it
    t_row: Decision | None = None
    t_fate: Fate | None = None
    t_full: bool = False  # journalled: the memory is complete
    t_files: bool = False  # journalled: the files would survive a power cut
    t_torn: bool = False  # one came before that
    t_banned: bool = False
    t_record: bool = False
    t_done: bool = False
    # the target's memory
    t_host: bool = True
    t_daemon: bool = True
    t_shim: bool = False
    t_silent: bool = True  # this daemon knows for sure that the gate was never opened
    t_tree: str = "none"  # none, silent, part, full, stopped, cold
    # the network
    said: int = 0
    cut: bool = False  # between the hosts
    deaths: int = 0
    human: bool = False  # somebody was called
    lost_memory: bool = False  # a host died with memory of the container that was nowhere else


def standing(state: State) -> Standing:
    """Return how the migration stands at the target, as `Reception` finds it, also after a restart."""
    fallen = Standing.FELL_BACK if state.t_done else Standing.FALLING_BACK
    found = (
        (not state.t_known, Standing.UNKNOWN),
        (state.t_fate is Fate.YIELD, Standing.YIELDED),
        (state.t_fate is Fate.FALL_BACK, fallen),
        (state.t_row is Decision.ABORT, Standing.ABORTED),
        (state.t_done, Standing.COMPLETE),
        (state.t_full and state.t_files, Standing.DRAINED),
        (state.t_tree in ("part", "full"), Standing.DRAINING),
        (state.t_tree == "silent", Standing.RESTORED),
        (state.t_row is Decision.COMMIT, Standing.LOST),
        (state.t_shim, Standing.PARKED),
        (state.t_parked, Standing.LOST),
        (True, Standing.RESERVED),
    )
    return next(standing for holds, standing in found if holds)


def told(state: State) -> DecisionTold | None:
    """Return what the source's daemon tells of its decision; None when it does not answer."""
    if not state.s_daemon or state.cut:
        return None
    return DecisionTold(
        migration="m",
        decision=state.s_row or "",
        ended=state.s_settled,
        resumed=state.s_fate is Fate.RESUME,
    )


def target_says(state: State) -> Standing | None:
    """Return what the target's daemon answers; None when it does not."""
    return standing(state) if state.t_daemon and not state.cut else None


def steps(state: State, limit: int) -> Iterator[tuple[str, State]]:
    """Return every step that may come next, with a name; at most `limit` deaths."""
    yield from automatic(state)
    yield from _human(state)
    if state.deaths < limit:
        yield from ((name, after._replace(deaths=state.deaths + 1)) for name, after in _deaths(state))


def automatic(state: State) -> Iterator[tuple[str, State]]:
    """Return every step that comes without a death and without a human."""
    yield from _source(state)
    yield from _target(state)
    yield from _policies(state)
    yield from _revivals(state)


# --- the source -----------------------------------------------------------------------------------------


def give_back(state: State) -> State:
    """Thaw, if the row says so; without memory only the ban goes."""
    row = state.s_row or Decision.ABORT
    if not may_give_back(row):
        return state._replace(s_row=row)
    tree = "run" if state.s_tree == "frozen" else state.s_tree
    return state._replace(
        s_row=row, s_tree=tree, s_shim=False, s_banned=False, s_settled=True, said=state.said | WITHDRAW
    )


def _source(state: State) -> Iterator[tuple[str, State]]:
    if state.s_daemon and state.s_began and state.s_row is None:
        yield from _forward(state)
    if state.s_shim:  # overdue, or its daemon is gone
        yield "source shim gives up", give_back(state)._replace(s_settled=False)
    if not state.s_daemon or state.s_settled:
        return
    if state.s_row is None:
        if state.s_began:
            yield "source aborts", give_back(state)
        else:
            yield from _recovers(state)
        return
    step = source_step(state.s_row, target_says(state), patient=True)
    if step is SourceStep.GIVE_BACK:
        yield "source gives back", give_back(state)
    elif step is SourceStep.TELL:
        yield "source tells the commit", state._replace(said=state.said | COMMIT)
    elif step is SourceStep.RELEASE:
        yield (
            "source releases",
            state._replace(s_tree="gone", s_shim=False, s_record=False, s_banned=False, s_settled=True),
        )
    elif step is SourceStep.CALL_A_HUMAN and not state.human:
        yield "source calls a human", state._replace(human=True)


def _forward(state: State) -> Iterator[tuple[str, State]]:
    """The daemon that began it goes on."""
    if not state.said & PROPOSE:
        yield "propose", state._replace(said=state.said | PROPOSE)
    if standing(state) is Standing.PARKED and not state.s_shim and state.s_tree == "run":
        yield "source parks", state._replace(s_shim=True, s_banned=True)
    if state.s_shim and state.s_tree == "run":
        yield "freeze", state._replace(s_tree="frozen", said=state.said | IMAGES)
    if state.said & RESTORED and state.s_tree == "frozen" and state.s_row is None:
        yield "COMMIT", state._replace(s_row=Decision.COMMIT, said=state.said | COMMIT)


def _recovers(state: State) -> Iterator[tuple[str, State]]:
    """A daemon that found the migration in the journal, undecided."""
    if not state.s_banned or state.s_tree != "gone":  # it cannot have been taken over, or it is here and frozen
        yield "source recovers", give_back(state)
        return
    claim = claim_after_reboot(None, target_says(state), declared_dead=False)
    if claim is Claim.OURS:
        yield "source claims", give_back(state)
    elif claim is Claim.THEIRS:
        yield "source stays away", state._replace(s_row=Decision.COMMIT)
    elif not state.human:
        yield "source calls a human", state._replace(human=True)


# --- the target -----------------------------------------------------------------------------------------


def _target(state: State) -> Iterator[tuple[str, State]]:
    if not state.t_daemon:
        return
    yield from _hears(state)
    now = standing(state)
    if now is Standing.UNKNOWN or state.t_done:
        return
    if state.t_row is Decision.ABORT:
        yield (
            "target clears away",
            state._replace(t_tree="none", t_shim=False, t_record=False, t_banned=False, t_done=True),
        )
    for patient in (True, False):
        step = next_step(
            now,
            state.t_row,
            told(state),
            patient=patient,
            remains=state.t_tree != "none",
            opened=not state.t_silent,
            durable=state.t_files,
        )
        yield from _settles(state, now, step)
    joined = state.s_host and state.s_tree == "frozen" and not state.cut
    if state.t_tree == "part" and not joined:
        yield "sink gives up", state._replace(t_tree="stopped")
    if state.t_tree == "part" and joined:
        yield "drain", state._replace(t_tree="full", t_full=True)
    if now is Standing.DRAINING and not state.t_files:
        yield "the files are written", state._replace(t_files=True)


def _hears(state: State) -> Iterator[tuple[str, State]]:
    now = standing(state)
    if state.said & PROPOSE:
        known = None if now is Standing.UNKNOWN else now
        reply = answer_proposal(known, state.t_row, ended=state.t_done, epoch=EPOCH, known_epoch=0)
        if reply is Reply.DO:
            yield "target reserves", state._replace(t_known=True)
    if now is Standing.RESERVED and state.t_row is None and not state.t_shim:
        yield "target parks", state._replace(t_shim=True, t_parked=True, t_record=True, t_banned=True)
    if state.said & IMAGES and now is Standing.PARKED and state.t_row is None and state.t_shim:
        yield "target restores", state._replace(t_tree="silent", said=state.said | RESTORED)
    if state.said & COMMIT and answer_commit(now, state.t_row) is Reply.DO:
        yield from _opens(state)
    if state.said & WITHDRAW and now is not Standing.UNKNOWN and answer_abort(now, state.t_row) is Reply.DO:
        yield "target aborts", _aborted(state)


def _opens(state: State) -> Iterator[tuple[str, State]]:
    """First the row, then the gate; a death may come between."""
    if state.t_row is None:
        yield "target writes commit", state._replace(t_row=Decision.COMMIT)
    elif state.t_shim and state.t_tree == "silent":
        yield "target opens", state._replace(t_tree="part", t_shim=False, t_silent=False)


def _aborted(state: State) -> State:
    """The row first; what is here is cleared away in a step of its own."""
    return state._replace(t_row=Decision.ABORT)


def _settles(state: State, now: Standing, step: Step) -> Iterator[tuple[str, State]]:
    if step is Step.ABORT and (state.t_row is not None or now in BEFORE_RESTORE or told(state) is not None):
        yield "target aborts", _aborted(state)
    elif step is Step.COMMIT and now is Standing.RESTORED:
        yield from _opens(state)
    elif step is Step.COMPLETE:
        yield "target completes", state._replace(t_done=True, t_banned=False)
    elif step is Step.FALL_BACK and state.t_fate is None:
        yield "target decides to fall back", state._replace(t_fate=Fate.FALL_BACK)
    elif step is Step.FALL_BACK:
        yield (
            "target starts anew",
            state._replace(t_tree="cold", t_files=True, t_banned=False, t_shim=False, t_done=True),
        )
    elif step is Step.CALL_A_HUMAN and not state.human:
        yield "target calls a human", state._replace(human=True)
    elif step is Step.YIELD and state.t_fate is None:
        yield "target yields", _yielded(state)
    elif step is Step.YIELD:  # promised, or it had not started anew when its host died
        yield (
            "target stays away",
            state._replace(t_shim=False, t_record=False, t_banned=False, t_tree="none", t_done=True),
        )


def _yielded(state: State) -> State:
    """The row first; what is here is thrown away in a step of its own."""
    if state.t_row is None:
        return _aborted(state._replace(t_known=True))
    return state._replace(t_fate=Fate.YIELD)


# --- people and podman ----------------------------------------------------------------------------------


def _human(state: State) -> Iterator[tuple[str, State]]:
    dead = not state.t_host and not state.t_full  # whoever declares a host dead sees to it
    if state.s_daemon and not state.s_settled and state.s_row is Decision.COMMIT and state.s_fate is None:
        word = target_says(state)
        if word is not None and answer_yield(word, state.t_row, state.t_fate) is Reply.DO:
            yield "human asks the target to yield", _yielded(state)
        if may_resume(state.s_row, word, declared_dead=dead) == "" and state.s_banned:
            tree = "run"
            yield (
                "human resumes",
                state._replace(s_fate=Fate.RESUME, s_tree=tree, s_shim=False, s_banned=False, s_settled=True),
            )
    if state.t_daemon and standing(state) is Standing.RESTORED and state.t_fate is None:
        gone = not state.s_host
        if may_take_over(standing(state), state.t_row, told(state), declared_dead=gone) == "":
            yield "human takes over", state._replace(t_row=Decision.COMMIT, t_fate=Fate.FALL_BACK)


def _policies(state: State) -> Iterator[tuple[str, State]]:
    """A restart policy, a unit or `podman start`."""
    if state.s_host and state.s_record and state.s_tree == "gone" and not state.s_banned:
        yield "podman starts it at the source", state._replace(s_tree="run")
    if state.t_host and state.t_record and state.t_tree in ("none", "stopped") and not state.t_banned:
        yield "podman starts it at the target", state._replace(t_tree="cold")


# --- deaths ---------------------------------------------------------------------------------------------


def _deaths(state: State) -> Iterator[tuple[str, State]]:
    if not state.cut:
        yield "the network is cut", state._replace(cut=True)
    if state.s_daemon:
        yield "source daemon dies", state._replace(s_daemon=False, s_began=False)
    if state.s_shim:
        yield "source shim dies", state._replace(s_shim=False)
    if state.s_host:
        lost = state.s_tree in ("run", "frozen") and state.t_tree not in ("full", "cold")
        yield "source host dies", state._replace(
            s_host=False, s_daemon=False, s_began=False, s_shim=False, s_tree="gone",
            lost_memory=state.lost_memory or lost,
        )  # fmt: skip
    if state.t_daemon:
        yield "target daemon dies", state._replace(t_daemon=False, t_silent=False)
    if state.t_shim:  # podman takes away what a failed restore left
        yield "target shim dies", state._replace(t_shim=False, t_tree="none")
    if state.t_tree == "part":
        yield "sink dies or link is cut for long", state._replace(t_tree="stopped")
    if state.t_host:
        lost = state.t_tree in ("part", "full", "cold")
        yield (
            "target host dies",
            state._replace(
                t_host=False,
                t_daemon=False,
                t_shim=False,
                t_silent=False,
                t_tree="none",
                t_torn=state.t_torn or (state.t_row is Decision.COMMIT and not state.t_files),
                lost_memory=state.lost_memory or lost,
            ),
        )


def _revivals(state: State) -> Iterator[tuple[str, State]]:
    if state.cut:
        yield "the network is healed", state._replace(cut=False)
    if not state.s_host and not fenced(state):
        yield "source host boots", state._replace(s_host=True)
    if state.s_host and not state.s_daemon:
        yield "source daemon starts", state._replace(s_daemon=True)
    if not state.t_host:
        if state.s_fate is not Fate.RESUME or state.t_banned or not state.t_record:
            yield "target host boots", state._replace(t_host=True)
    elif not state.t_daemon:
        yield "target daemon starts", state._replace(t_daemon=True, t_parked=state.t_known)


def fenced(state: State) -> bool:
    """Say whether the source was declared dead so that it must stay so: it would start the container again."""
    return state.t_fate is Fate.FALL_BACK and state.s_row is not Decision.COMMIT and not state.s_banned


# --- what must hold -------------------------------------------------------------------------------------


def wrong(state: State) -> str:
    """Return which invariant a state breaks; empty when it breaks none."""
    heard_here = state.s_tree == "run"
    heard_there = state.t_tree in ("part", "full", "cold")
    if heard_here and heard_there:
        return "two open gates"
    if state.t_full and state.t_row is not Decision.COMMIT:
        return "runs without a commit"
    if not state.s_record and not state.t_files:
        return "the only files could be lost in a power cut"
    if state.t_tree == "cold" and state.t_torn:
        return "started from files that a power cut has torn"
    anywhere = state.s_tree in ("run", "frozen") or state.t_tree in ("full", "cold")
    if not anywhere and not state.lost_memory:
        return "on neither host, and no host was lost"
    return ""


def place(state: State) -> str:
    """Return where a migration that has come to rest is: source, target, human; empty when it is none of them."""
    quiet = not state.t_host or state.t_done or standing(state) in (Standing.UNKNOWN, Standing.ABORTED)
    if state.s_tree == "run" and state.t_tree == "none" and quiet:
        return "source"
    away = not state.s_record or (fenced(state) and not state.s_host)
    if state.t_done and state.t_tree in ("full", "cold") and away:
        return "target"
    if state.t_full and state.t_tree == "none" and not state.s_record:
        return "target"  # it was the target's alone when the target's host died
    if state.s_tree == "gone" and state.s_settled and state.s_row is Decision.ABORT:
        return "source"  # its host died; it may be started again there
    return "human" if state.human else ""


def explore(limit: int) -> tuple[dict[State, tuple[State | None, str]], dict[State, tuple[State, ...]]]:
    """Return every reachable state with how it was reached, and with its automatic steps."""
    first = State(s_began=True)
    came: dict[State, tuple[State | None, str]] = {first: (None, "")}
    onward: dict[State, tuple[State, ...]] = {}
    pending = deque([first])
    while pending:
        state = pending.popleft()
        onward[state] = tuple(after for _, after in automatic(state) if after != state)
        for name, after in steps(state, limit):
            if after not in came:
                came[after] = (state, name)
                pending.append(after)
    return came, onward
