"""`lifeboat`: the parser and the entry point."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from migrator.errors import LifeboatError, told_of
from migrator.later import Later
from migrator.terms import Method, Side, Wish
from watchdog.paths import DIRECTORY, SETTINGS
from watchdog.policy.truth import Truth

EPILOG = """\
exit status:
  0  done                            4  a step failed; the container runs where it was
  1  an error not named here         5  another host refused, failed or cannot be reached
  2  bad arguments, files or names   6  a human must look: see lifeboat recover
  3  it cannot be done; nothing was changed
  7  policy try: the gravest verdict is suspect
  8  policy try: the gravest verdict is failing
  9  policy try: a device, or a file, cannot be judged
  130  interrupted; what was begun goes on in lifeboatd

examples:
  lifeboat status                          how is this host?
  lifeboat check                           could every container be moved right now?
  lifeboat evacuate --dry-run              what would an evacuation do?
  lifeboat migrate web --to beta           move one container
  lifeboat policy check my-rules.toml      is this policy file good?
  smartctl --json -x /dev/sda | lifeboat policy try -    what would the rules say?
"""

Verb = Callable[[argparse.Namespace], int]


class _Verbs:
    """Stands for a module of verbs; it is loaded when one of them runs, for each needs other libraries."""

    def __init__(self, name: str) -> None:
        self._module = Later(f"watchdog.cli.{name}")

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*words: Any) -> Any:
            return getattr(self._module, name)(*words)

        return call


if TYPE_CHECKING:
    from migrator import version
    from watchdog.cli import act, cluster, offline, policy, quiet, show, watch
else:
    act, cluster, offline, policy = _Verbs("act"), _Verbs("cluster"), _Verbs("offline"), _Verbs("policy")
    quiet, watch = _Verbs("quiet"), _Verbs("watch")
    show, version = Later("watchdog.cli.show"), Later("migrator.version")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs."""
    parser = argparse.ArgumentParser(
        prog="lifeboat",
        description="Move containers off a host, before it fails or whenever you like.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, help="show program's version number and exit")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    _add_watching(verbs)
    _add_acting(verbs)
    _add_policy(verbs)
    _add_quiet(verbs)
    _add_cluster(verbs)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; return the exit status."""
    arguments = build_parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except LifeboatError as error:
        sys.stderr.write(f"lifeboat: {error}\n")
        if arguments.json:
            show.as_json(told_of(error))
        return error.exit_status
    except KeyboardInterrupt:
        sys.stderr.write("lifeboat: interrupted; what was begun goes on in lifeboatd\n")
        return 130
    except BrokenPipeError:
        return 0


class _Version(argparse.Action):
    """Tells the version, which takes a look into the packages that are installed."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest=argparse.SUPPRESS, default=argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        sys.stdout.write(f"lifeboat {version.own_version()}\n")
        parser.exit()


Subparsers = argparse._SubParsersAction


def _verb(verbs: Subparsers[argparse.ArgumentParser], name: str, run: Verb, text: str) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.add_argument("--json", action="store_true", help="answer as JSON")
    parser.set_defaults(run=run)
    return parser


def _add_watching(verbs: Subparsers[argparse.ArgumentParser]) -> None:
    _verb(verbs, "status", watch.status, "how this host is, and why")
    signals = _verb(verbs, "signals", watch.signals, "what the hardware tells")
    signals.add_argument("--catalog", action="store_true", help="all signals that policies may name")
    check = _verb(verbs, "check", watch.check, "could every container be moved now, and if not, why")
    check.add_argument("container", nargs="?", help="only this one")
    check.add_argument("--deep", action="store_true", help="really move a throwaway container to every host")
    check.add_argument("--to", metavar="HOST", help="with --deep: only to this host")
    plan = _verb(verbs, "plan", watch.plan, "what this host would do by itself now; all of it: evacuate --dry-run")
    _add_method(plan)
    history = _verb(verbs, "history", watch.history, "past migrations")
    history.add_argument("--limit", type=int, default=50, metavar="N", help="at most so many (default: 50)")
    one = _verb(verbs, "show", watch.show_one, "the course of one migration")
    one.add_argument("id", help="from: lifeboat history")


def _add_acting(verbs: Subparsers[argparse.ArgumentParser]) -> None:
    migrate = _verb(verbs, "migrate", act.migrate, "move one container to another host")
    migrate.add_argument("container", help="name or id; of a pod, or of a member of one, all of it goes")
    migrate.add_argument("--to", required=True, metavar="HOST", help="the target")
    evacuate = _verb(verbs, "evacuate", act.evacuate, "move every container to other hosts")
    for parser in (migrate, evacuate):
        _add_method(parser)
        parser.add_argument("--dry-run", action="store_true", help="only tell what would be done")
    drill = _verb(verbs, "drill", act.drill, "a fire drill: a marked signal, and canaries leave and come back")
    drill.add_argument("--all", action="store_true", help="all containers, not only lifeboat.canary=yes")
    _add_recover(verbs)
    _verb(
        verbs,
        "cancel",
        act.cancel,
        "stop the evacuation under way; what is not committed goes back, this host stays cordoned, and one that is "
        "failing is paused: it evacuates nothing by itself until lifeboat resume",
    )
    _verb(verbs, "cordon", act.set_flag, "take no containers from other hosts")
    _verb(verbs, "uncordon", act.set_flag, "take containers again")
    _verb(verbs, "pause", act.set_flag, "do not evacuate by itself")
    _verb(verbs, "resume", act.set_flag, "evacuate by itself again")
    group = verbs.add_parser("storm", help="the guard against moving everything at once", description="The guard.")
    inner = group.add_subparsers(dest="storm_verb", required=True, metavar="VERB")
    _verb(inner, "reset", act.reset_storm, "let this host trust its signals again")


def _add_recover(verbs: Subparsers[argparse.ArgumentParser]) -> None:
    text = "migrations that did not end by themselves: where the container is, and what a human may do"
    recover = _verb(verbs, "recover", act.recover, text)
    recover.add_argument("migration", nargs="?", help="which one (default: tell of all)")
    wishes = recover.add_mutually_exclusive_group()
    for wish, meaning in (
        (Wish.RESUME, "let it run on this host: with the frozen memory, or anew from its files where that is lost"),
        (Wish.FORGET, "throw away what is on this host"),
    ):
        wishes.add_argument(f"--{wish}", dest="wish", action="store_const", const=str(wish), help=meaning)
    dead = recover.add_mutually_exclusive_group()
    for side in Side:
        dead.add_argument(
            f"--{side}-is-dead",
            dest="dead",
            action="store_const",
            const=str(side),
            help=f"your word that the {side} does not answer because it is dead, and stays so",
        )


def _add_method(parser: argparse.ArgumentParser) -> None:
    rungs = [str(rung) for rung in Method]
    parser.add_argument("--method", choices=rungs, help="how to move (default: from the settings)")


def _add_policy(verbs: Subparsers[argparse.ArgumentParser]) -> None:
    group = verbs.add_parser("policy", help="the rules: check, explain, try, replay", description="The rules.")
    inner = group.add_subparsers(dest="policy_verb", required=True, metavar="VERB")
    check = _verb(inner, "check", policy.check, "are the policy files good")
    check.add_argument("files", nargs="*", help="files (default: all in force)")
    check.add_argument(
        "--settings", type=Path, default=SETTINGS, metavar="FILE", help="settings that timings must fit to"
    )
    explain = _verb(inner, "explain", policy.explain, "how every rule stands on every device, and why")
    explain.add_argument("what", nargs="?", help="only this rule or device")
    _add_offline(inner)
    _verb(inner, "reload", policy.reload, "have lifeboatd read the policies anew")
    _verb(inner, "score", policy.scores, "precision and recall of the rules, from what lifeboat verdict was told")


def _add_offline(inner: Subparsers[argparse.ArgumentParser]) -> None:
    _verb(inner, "new", offline.new, "print a commented policy file to begin with")
    trial = _verb(inner, "try", offline.judge_recorded, "judge recorded output of devices")
    trial.add_argument(
        "files",
        nargs="+",
        help="outputs of smartctl --json -x (or its text), trees of sysfs or listings of them, kernel logs, "
        "outputs of ipmitool, sensors -j, lvs, zpool, mdadm --detail, btrfs, upsc or apcaccess, /proc/mdstat, "
        "machine-check records, in the order of time; - for standard input",
    )
    trial.add_argument("--signals", action="store_true", help="show every signal that was read")
    replay = _verb(inner, "replay", offline.replay, "run rules over the past: when would they have fired")
    replay.add_argument(
        "files",
        nargs="*",
        help="traces of lifeboat policy record, or Backblaze's daily CSV files in the order of days (default: what "
        "this host has told)",
    )
    replay.add_argument("--alarms", action="store_true", help="list every alarm")
    replay.add_argument(
        "--disks-per-host", type=int, default=1, metavar="N", help="devices that make a host-year (default: 1)"
    )
    record = _verb(inner, "record", offline.record, "print what this host has told, for lifeboat policy replay")
    for parser in (trial, replay):
        parser.add_argument(
            "--policy",
            action="append",
            metavar="FILE",
            help="rules to use; may be repeated (default: all in force)",
        )
    for parser in (replay, record):
        parser.add_argument("--days", type=float, default=90.0, metavar="N", help="how far back (default: 90)")


def _add_quiet(verbs: Subparsers[argparse.ArgumentParser]) -> None:
    silence = _verb(verbs, "silence", quiet.silence, "keep a rule or a device from acting and alerting for a time")
    silence.add_argument("what", help="a rule, or a device by name, identity or serial number; `*` allowed")
    silence.add_argument("--for", dest="lasting", type=quiet.seconds, required=True, metavar="TIME", help="as 2h")
    silence.add_argument("--why", required=True, metavar="TEXT", help="the reason, as status shows it")
    unsilence = _verb(verbs, "unsilence", quiet.unsilence, "end a silence")
    unsilence.add_argument("what", help="as in: lifeboat silence")
    forget = _verb(verbs, "forget", quiet.forget, "forget the readings of a device that was replaced")
    forget.add_argument("device", help="its name, identity or serial number")
    truth = _verb(verbs, "verdict", quiet.verdict, "note what an evacuation really was for; without words: list")
    truth.add_argument("id", nargs="?", help="of the evacuation; for `missed`: the device that failed unforeseen")
    truth.add_argument("truth", nargs="?", choices=[str(word) for word in Truth], help="what was found out")
    truth.add_argument("--note", default="", metavar="TEXT", help="a remark")


def _add_cluster(verbs: Subparsers[argparse.ArgumentParser]) -> None:
    group = verbs.add_parser("cluster", help="the hosts that trust each other", description="The cluster.")
    inner = group.add_subparsers(dest="cluster_verb", required=True, metavar="VERB")
    init = _verb(inner, "init", cluster.init, "make a cluster with this host as its first")
    init.add_argument("--host", help="this host's name in the cluster (default: its own)")
    init.add_argument("--address", required=True, help="this host's address for its peers")
    invite = _verb(inner, "invite", cluster.invite, "write an invitation for another host")
    invite.add_argument("host", help="its name")
    invite.add_argument("--address", required=True, help="its address for its peers")
    invite.add_argument("--output", type=Path, metavar="FILE", help="where to write it (default: standard output)")
    token = _verb(inner, "token", cluster.token, "make a one-time token with which another host can join")
    token.add_argument("--host", help="only for a host of this name")
    token.add_argument("--ttl", default="1h", metavar="TIME", help="how long it is good: 15m, 2h, 1d (default: 1h)")
    join = _verb(inner, "join", cluster.join, "join a cluster, by a token or by an invitation")
    join.add_argument("file", nargs="?", help="an invitation")
    join.add_argument("--token", help="from `lifeboat cluster token`; - reads it from standard input")
    join.add_argument("--host", help="this host's name in the cluster (default: its own)")
    join.add_argument("--address", help="this host's address for its peers")
    remove = _verb(inner, "remove", cluster.remove, "take a host out of the cluster: nobody listens to it any more")
    remove.add_argument("host", help="its name")
    renew = _verb(inner, "renew", cluster.renew, "get this host a new certificate now")
    peers = _verb(inner, "peers", cluster.peers, "the hosts of the cluster")
    for parser in (init, token, invite, join, remove, renew, peers):
        parser.add_argument(
            "--directory", type=Path, default=DIRECTORY, metavar="DIR", help=f"settings (default: {DIRECTORY})"
        )


if __name__ == "__main__":
    sys.exit(main())
