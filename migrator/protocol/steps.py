"""Who may do what next in a migration: every decision of the protocol, as pure functions.

The daemons, the shims and the exhaustive model (tests/pure/test_protocol_model.py) call the same functions, so
what is proved of the model is what runs. Values in, values out; `None` stands for silence or "no row yet".

The rules, in one place:

- The source's journal row is the decision. First writer wins; `commit` is the point of no return.
- A target opens its gate only by the source's `commit`, and aborts a restored tree only by its `abort`.
- A target's own row is its promise: after `abort` it never opens, after `commit` it never clears away.
- A source gives back only what was never committed, or what a human resumes after the target's proof.
- A source releases only when the target says that it needs nothing more: the memory is there, and the files are on
  disk, so that a power cut there takes nothing that was safe here.
- Of a pod there is one word for all: a decision or a fate that one member has is that of every one. A source
  releases none before the target needs nothing more for any.
- What a human decides later is a row too (`Fate`), and again the first writer wins: a target that has yielded never
  starts the container, one that has fallen back never yields.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from migrator.protocol.journal import Decision, Fate
from migrator.protocol.messages import DecisionTold, Standing


class Step(StrEnum):
    """What is to be done with an incoming migration."""

    WAIT = "wait"
    ABORT = "abort"
    COMMIT = "commit"  # or go on with a commit that was cut short
    COMPLETE = "complete"
    FALL_BACK = "fall back"  # the memory will not come: do what the container's fallback says
    YIELD = "yield"  # a human resumed the container at the source
    CALL_A_HUMAN = "call a human"  # and go on waiting for the source's word


AFTER_RESTORE: dict[str, Step] = {Decision.COMMIT: Step.COMMIT, Decision.ABORT: Step.ABORT}


def next_step(
    standing: Standing,
    own: Decision | None,
    told: DecisionTold | None,
    *,
    patient: bool,
    remains: bool = True,
    opened: bool = True,
    durable: bool = True,
) -> Step:
    """Return what a target does by itself, from its journal's decision and the source's word.

    `told` is None when the source does not answer; then `patient` says that it may yet come back. `remains`: the
    tree is here; it is not when this host was down meanwhile, and then a human may have resumed the source's.
    `opened`: the container may have spoken here. While it has not, a source that answers has lost nothing.
    `durable`: its files were written to this host's disks; where they were not and the host was down, a start from
    them may lose what the source still has.
    """
    promised = standing is Standing.YIELDED  # and not cleared away yet: its daemon died in between
    if promised or (told is not None and told.resumed and standing not in OVER):
        return Step.YIELD
    if own is Decision.ABORT:
        return Step.ABORT
    if standing in (Standing.LOST, Standing.FALLING_BACK):
        startable = remains or (durable and told is not None)
        return _after_loss(standing, own, told, startable=startable, opened=opened)
    if standing is Standing.RESTORED:
        return AFTER_RESTORE.get(own or (told.decision if told else ""), Step.WAIT)
    if standing is Standing.DRAINED and (told.ended if told else not patient):
        return Step.COMPLETE
    over = told.decision == Decision.ABORT if told else not patient
    return Step.ABORT if standing in BEFORE_RESTORE and own is None and over else Step.WAIT


def _after_loss(
    standing: Standing, own: Decision | None, told: DecisionTold | None, *, startable: bool, opened: bool
) -> Step:
    if own is None:
        return Step.ABORT  # what was parked here is gone, so the promise not to open it costs nothing
    if standing is Standing.LOST and told is not None and not opened:
        return Step.WAIT  # the source calls a human, who resumes it there
    return Step.FALL_BACK if startable else Step.CALL_A_HUMAN


BEFORE_RESTORE = frozenset({Standing.RESERVED, Standing.PARKED})
OPENED = frozenset({Standing.DRAINING, Standing.DRAINED, Standing.COMPLETE})
OVER = frozenset({Standing.ABORTED, Standing.COMPLETE, Standing.FELL_BACK, Standing.YIELDED})
"""Standings in which a target is done with a migration."""


class Reply(StrEnum):
    """How a target answers a request of its source."""

    DO = "do"
    AGAIN = "again"  # it was done before: give the same answer
    REFUSE = "refuse"


def answer_proposal(
    known: Standing | None, own: Decision | None, *, ended: bool, epoch: int, known_epoch: int
) -> Reply:
    """Answer a proposal; `epoch` counts who owned the container, and the past is refused.

    A migration that was decided or ended here is over: a proposal that comes late begins nothing.
    """
    if known is Standing.RESERVED and own is None:
        return Reply.AGAIN
    if known is not None or own is not None or ended or epoch <= known_epoch:
        return Reply.REFUSE
    return Reply.DO


def answer_commit(standing: Standing, own: Decision | None) -> Reply:
    """Answer a commit: only what is restored here, and was not aborted here, may be opened."""
    if own is Decision.ABORT:
        return Reply.REFUSE
    if standing in OPENED:
        return Reply.AGAIN
    return Reply.DO if standing is Standing.RESTORED else Reply.REFUSE


def answer_abort(standing: Standing, own: Decision | None) -> Reply:
    """Answer a withdrawal: never after the commit."""
    if standing is Standing.ABORTED:
        return Reply.AGAIN
    return Reply.REFUSE if own is Decision.COMMIT else Reply.DO


class SourceStep(StrEnum):
    """What a source does with a migration away from it."""

    GIVE_BACK = "give back"
    TELL = "tell"  # say the commit, again if need be
    WAIT = "wait"
    RELEASE = "release"
    CALL_A_HUMAN = "call a human"  # and go on waiting for a better word


def source_step(own: Decision | None, target: Standing | None, *, patient: bool) -> SourceStep:
    """Return what follows at a source from its decision and from how the migration stands at the target.

    `target` is None when it does not answer; `patient` says that it may yet. A target that knows nothing
    stands as UNKNOWN.
    """
    if own is not Decision.COMMIT:
        return SourceStep.GIVE_BACK
    if target in (Standing.DRAINED, Standing.COMPLETE, Standing.FELL_BACK):
        return SourceStep.RELEASE
    if target is Standing.RESTORED:
        return SourceStep.TELL
    if target in (Standing.DRAINING, Standing.FALLING_BACK):
        return SourceStep.WAIT
    if target is None and patient:
        return SourceStep.WAIT
    return SourceStep.CALL_A_HUMAN


def may_give_back(row: Decision) -> bool:
    """Say whether a shim, or a daemon without one, may thaw: `row` is what stands after it wrote `abort`."""
    return row is Decision.ABORT


class Claim(StrEnum):
    """What a source may do by itself with a container whose migration has no decision, after its host was down."""

    OURS = "ours"
    THEIRS = "theirs"  # a human took it over at the target
    ASK = "ask"  # the target must be heard first


def claim_after_reboot(own: Decision | None, target: Standing | None, *, declared_dead: bool) -> Claim:
    """Return whose a container is that was frozen and not committed when its host died.

    Before that, nobody could have taken it over; so this is asked only of what stood at the freeze or behind it.
    """
    if own is Decision.COMMIT:
        return Claim.THEIRS
    if target is None:
        return Claim.OURS if declared_dead else Claim.ASK
    return Claim.THEIRS if target in TAKEN else Claim.OURS


TAKEN = frozenset(
    {Standing.DRAINING, Standing.DRAINED, Standing.COMPLETE, Standing.FALLING_BACK, Standing.FELL_BACK}
)


def sealed_as(fate: Fate) -> Standing:
    """Return how a target stands that has found this row of its own, and not what was to follow it."""
    return Standing.FALLING_BACK if fate is Fate.FALL_BACK else Standing.YIELDED


def with_its_pod(standing: Standing, fate: Fate | None, *, lost: bool) -> Standing:
    """Return how a member of a pod stands at a target, where it stood so by itself.

    What was decided of one was decided of all; and when the memory of one did not come (`lost`), all have lost.
    """
    if standing not in (Standing.RESTORED, Standing.DRAINING, Standing.DRAINED):
        return standing
    if fate is not None:
        return sealed_as(fate)
    return Standing.LOST if lost and standing is not Standing.RESTORED else standing


def may_release(fate: Fate | None, provided: Collection[str], pod: Collection[str]) -> bool:
    """Say whether a member may be released at its source: its target needs nothing more for any member.

    `fate` is what stands in the journal: after a restart nobody asks again for those that are released.
    """
    return fate is Fate.RELEASE or (fate is None and set(pod) <= set(provided))


def answer_yield(standing: Standing, own: Decision | None, fate: Fate | None) -> Reply:
    """Answer a source at which a human wants to resume: a target that says yes never runs the container again."""
    if fate is Fate.YIELD or own is Decision.ABORT:
        return Reply.AGAIN
    if own is Decision.COMMIT and (fate is not None or standing is not Standing.LOST):
        return Reply.REFUSE
    return Reply.DO


def may_resume(own: Decision | None, target: Standing | None, *, declared_dead: bool) -> str:
    """Return why a human may not resume a committed container at its source; empty when he may."""
    if own is not Decision.COMMIT:
        return "it was not committed: it is here anyway"
    if target is None:
        return "" if declared_dead else "the target does not answer, and nobody said that it is dead"
    if target in (Standing.ABORTED, Standing.YIELDED):
        return ""
    return f"the target answers, and there it is {target}"


def may_take_over(
    standing: Standing, own: Decision | None, told: DecisionTold | None, *, declared_dead: bool, torn: bool = False
) -> str:
    """Return why a human may not start the container at the target; empty when he may.

    `torn`: its files may not be whole here, for the host was down before they were on disk.
    """
    if standing is Standing.LOST:
        better = torn and told is not None
        return "the source answers, and has the files that may be torn here: resume it there" if better else ""
    if standing is not Standing.RESTORED:
        return f"it is {standing} here"
    if own is not None:
        return "it is decided: nothing is to be taken over"
    if told is None:
        return "" if declared_dead else "the source does not answer, and nobody said that it is dead"
    return "the source answers: it decides"


class Place(StrEnum):
    """Where a container is, seen from both hosts: the outcomes of a recovery."""

    SOURCE = "source"
    TARGET = "target"
    ELSEWHERE = "elsewhere"  # it has moved on since
    BOTH = "both"
    NOWHERE = "nowhere"
    UNKNOWN = "unknown"  # it does not run here, and the other host does not answer


@dataclass(frozen=True)
class Sight:
    """What one host says of a container: whether it runs there, and the epoch it knows."""

    runs: bool
    epoch: int


def place(source: Sight | None, target: Sight | None, epoch: int) -> Place:
    """Return where the container of the migration into `epoch` is; of a silent host (None) we know nothing."""
    here, there = source is not None and source.runs, target is not None and target.runs
    if here and there:
        return Place.BOTH
    if here or there:
        return Place.SOURCE if here else Place.TARGET
    if max((sight.epoch for sight in (source, target) if sight is not None), default=0) > epoch:
        return Place.ELSEWHERE
    return Place.UNKNOWN if source is None or target is None else Place.NOWHERE
