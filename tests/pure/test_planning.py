"""The plan as a whole: order, places, rungs and times; and what must hold of every plan, whatever the cluster."""

from __future__ import annotations

import random
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migrator.health import Verdict
from migrator.model import (
    ContainerFacts,
    EvacuationPlan,
    HostFacts,
    Method,
    MigrationOutcome,
    NetworkAttachment,
    NetworkFacts,
    Pager,
    Phase,
    PhaseTime,
    PlannedMigration,
)
from migrator.planning.limits import Limits
from migrator.planning.order import ordered_units
from migrator.planning.plan import Assumptions, plan_evacuation
from migrator.planning.rates import DEFAULTS, Past, Rates, measured, measured_link
from tests.pure.values import GIB, container, host, obstacles, pod

MIB = 1 << 20


def plan(
    containers: list[ContainerFacts],
    targets: list[HostFacts],
    method: Method = Method.LAZY,
    pager: Pager = Pager.LIFEBOAT,
    **assumed: Any,
) -> EvacuationPlan:
    """Plan to empty host a."""
    source = host("a", labels={"rack": "r1"}, pager=pager)
    return plan_evacuation(source, containers, targets, method, Assumptions(**assumed))


def places(found: EvacuationPlan) -> dict[str, str | None]:
    """Return who goes where, in the order of the plan."""
    return {item.container: item.target for item in found.migrations}


def one(found: EvacuationPlan, name: str) -> PlannedMigration:
    """Return one line of a plan."""
    return next(item for item in found.migrations if item.container == name)


def label(name: str, **labels: str) -> ContainerFacts:
    """Return a container with labels, given without their prefix."""
    words = {f"lifeboat.{key.rstrip('_')}": value for key, value in labels.items()}
    return container(name, 0.25, labels=words)


def test_priority_first_then_the_small_ones_and_the_room_grows_less() -> None:
    containers = [
        container("big", 4),
        container("small", 1),
        container("first", 3, labels={"lifeboat.priority": "9"}),
    ]
    found = plan(containers, [host("b")])
    assert list(places(found).items()) == [("first", "b"), ("small", "b"), ("big", None)]
    assert "MiB are needed" in found.migrations[2].reason


def test_what_stays_and_what_takes_a_lower_rung() -> None:
    crun = container("crun", obstacles=obstacles("made by crun", "lazy"))
    stuck = container("stuck", obstacles=obstacles("no", "lazy", "full", "cold"))
    cold = container("cold", obstacles=obstacles("no", "lazy", "full"))  # only what nothing else can move
    found = plan([label("kept", evacuate="no"), crun, stuck, cold], [host("b")])
    assert (one(found, "cold").target, one(found, "cold").method) == ("b", Method.COLD)
    assert (one(found, "kept").target, one(found, "kept").kept) == (None, True)
    assert (one(found, "stuck").target, one(found, "stuck").reason) == (None, "no")
    assert one(found, "crun").method is Method.FULL
    assert one(plan([label("x", method="full")], [host("b")]), "x").method is Method.FULL


def test_a_host_that_cannot_take_the_lazy_rung_gets_the_next() -> None:
    found = plan([container()], [host("b", criu="4.3")], pager=Pager.CRIU)
    assert (found.migrations[0].target, found.migrations[0].method) == ("b", Method.FULL)


def test_load_is_spread_and_ties_go_by_name() -> None:
    found = plan([container(name) for name in "uvwx"], [host("c"), host("b")])
    assert list(places(found).values()) == ["b", "c", "b", "c"]


def test_another_rack_is_preferred() -> None:
    near, far = host("b", labels={"rack": "r1"}), host("c", labels={"rack": "r2"})
    found = plan([container()], [near, far], domains=("rack",))
    assert found.migrations[0].target == "c"
    alone = plan([container()], [near], domains=("rack",))
    assert "the same rack as here" in alone.migrations[0].reason


def test_containers_of_one_group_go_to_one_host_even_when_others_have_more_room() -> None:
    group = [label(f"m{number}", with_="shop") for number in range(3)]
    others = [label(f"o{number}") for number in range(3)]
    found = places(plan([*group, *others], [host("b"), host("c"), host("d")]))
    assert len({found[item.name] for item in group}) == 1
    assert len(set(found.values())) == 3
    names = list(found)
    first = names.index("m0")
    assert names[first : first + 3] == ["m0", "m1", "m2"]


def test_a_group_that_fits_nowhere_stays_as_a_whole_with_its_reason() -> None:
    group = [container(f"m{number}", 4, labels={"lifeboat.with": "shop"}) for number in range(2)]
    found = plan(group, [host("b"), host("c")])
    assert set(places(found).values()) == {None}
    assert all("8192 MiB are needed" in item.reason for item in found.migrations)


def test_fellows_of_a_bridge_stay_together_while_there_is_room() -> None:
    bridge = NetworkAttachment(
        network="shop", driver="bridge", interface="eth0", mac="02:00:00:00:00:02", addresses=()
    )
    networks = (NetworkFacts(name="shop", driver="bridge"),)
    members = [container(f"m{number}", 2, networks=(bridge,)) for number in range(4)]
    found = places(plan(members, [host("b", networks=networks), host("c", networks=networks)]))
    assert list(found.values()) == ["b", "b", "b", "c"]


def test_apart_in_three_steps() -> None:
    three = [label(f"n{number}", apart="db") for number in range(3)]
    spread = plan(three, [host("b"), host("c"), host("d", apart=("db",)), host("e")])
    assert sorted(filter(None, places(spread).values())) == ["b", "c", "e"]
    not_broken = plan(three, [host("b"), host("d", apart=("db",))])
    assert set(places(not_broken).values()) == {"b"}
    assert not any(item.warnings for item in not_broken.migrations)
    ignored = plan(three, [host("d", apart=("db",))])
    assert set(places(ignored).values()) == {"d"}
    assert all("cannot be kept" in item.warnings[0] for item in ignored.migrations)


def test_what_others_wait_for_goes_first_and_inherits_their_priority() -> None:
    containers = [label("web", priority="5", after="db"), label("db"), label("other", priority="3")]
    found = plan(containers, [host("b")])
    assert list(places(found)) == ["db", "web", "other"]
    assert one(found, "web").after == ("db",)
    assert one(found, "web").begins_s >= one(found, "db").ends_s


def test_a_circle_of_wishes_is_told_and_does_not_hang() -> None:
    units, warnings = ordered_units([label("x", after="y"), label("y", after="x"), label("z", after="z,gone")])
    assert len(units) == 3
    assert len(warnings) == 1
    assert "circle at x and y" in warnings[0]


def test_what_comes_too_late_is_said_and_goes_down_the_ladder() -> None:
    rates = {"b": Rates(drain_bytes_per_s=10e6, full_bytes_per_s=400e6)}
    found = plan([container("small", 0.01), container("large", 2)], [host("b")], rates=rates, time_left_s=20.0)
    assert one(found, "small").method is Method.LAZY
    assert not one(found, "small").late
    large = one(found, "large")
    assert (large.method, large.late) == (Method.FULL, False)
    assert large.warnings == ("full instead of lazy, which would end too late",)
    slow = {"b": Rates(drain_bytes_per_s=10e6, full_bytes_per_s=10e6)}
    assert (
        one(plan([container("large", 2)], [host("b")], rates=slow, time_left_s=30.0), "large").method is Method.COLD
    )
    kept = container("large", 2, obstacles=obstacles("its files are nowhere else", "cold"))
    assert one(plan([kept], [host("b")], rates=slow, time_left_s=30.0), "large").late
    none = plan([container("large", 2)], [host("b")], rates=rates, time_left_s=1.0)
    assert [item.container for item in none.late] == ["large"]
    assert plan([container("large", 2)], [host("b")], rates=rates).late == ()


def test_freezes_come_one_after_the_other_while_drains_overlap_preparations() -> None:
    rates = {"b": Rates(copy_s=2, park_s=1, freeze_s=1, release_s=0.5, drain_bytes_per_s=100 * MIB)}
    containers = [container(f"c{number}", 200 / 1024) for number in range(4)]
    found = plan(
        containers, [host("b")], rates=rates, limits=Limits(at_once=4, away=2, away_per_target=2, freezes=1)
    )
    freezes = [(item.freezes_s, item.freezes_s + item.expected_freeze_ms / 1000) for item in found.migrations]
    assert all(before[1] <= after[0] for before, after in pairwise(freezes))
    alone = plan(
        containers, [host("b")], rates=rates, limits=Limits(at_once=1, away=1, away_per_target=1, freezes=1)
    )
    assert found.ends_s < alone.ends_s
    assert alone.ends_s == pytest.approx(4 * 6.5)
    assert [item.begins_s for item in alone.migrations] == pytest.approx([0, 6.5, 13, 19.5])


def outcome(target: str, freeze_ms: float, drained_bytes: int, drain_s: float, waited_s: float) -> MigrationOutcome:
    """Return a migration that went well."""
    phases = (
        PhaseTime(phase=Phase.PREPARE, began_at=0, duration_s=5 + waited_s),
        PhaseTime(phase=Phase.RELEASE, began_at=9, duration_s=0.7),
    )
    return MigrationOutcome(
        migration="1",
        container="x",
        source="a",
        target=target,
        method=Method.LAZY,
        phase=Phase.DONE,
        freeze_ms=freeze_ms,
        drained_bytes=drained_bytes,
        drain_s=drain_s,
        waited_s=waited_s,
        parked_s=1.25,
        phases=phases,
    )


def test_rates_are_measured_for_each_host_and_waiting_for_a_turn_counts_nothing() -> None:
    pasts = [Past(container(), outcome("b", 500, 100 * MIB, 0.5, waited)) for waited in (0, 30, 60)]
    pasts += [Past(container(), outcome("c", 900, MIB, 0.001, 0))]
    found = measured(pasts, ["b"])
    assert found["b"].freeze_s == 0.5
    assert found["b"].copy_s == pytest.approx(5 - 1.25)
    assert found["b"].park_s == pytest.approx(1.25)
    assert found["b"].release_s == pytest.approx(0.7)
    assert found["b"].drain_bytes_per_s == pytest.approx(200 * MIB)
    alone = measured(pasts[-1:], ["c"])["c"]
    assert alone.freeze_s == pytest.approx((0.9 + 2 * DEFAULTS.freeze_s) / 3)  # one is not enough to believe
    assert alone.drain_bytes_per_s == DEFAULTS.drain_bytes_per_s  # a small one says nothing of the flow
    assert measured([], ["b"]) == {}


def test_what_takes_long_now_and_then_counts_but_an_accident_does_not() -> None:
    pasts = [Past(container(), outcome("b", freeze, MIB, 0.1, 0)) for freeze in (500, 500, 500, 1000, 60_000)]
    assert measured(pasts, ["b"])["b"].freeze_s == pytest.approx((3 * 0.5 + 1 + 1.5) / 5)


def test_migrations_to_other_hosts_tell_more_than_the_defaults() -> None:
    pasts = [Past(container(), outcome("b", 700, 100 * MIB, 0.5, 0)) for _ in range(3)]
    pasts.insert(0, Past(container(), outcome("c", 900, 100 * MIB, 0.5, 0)))
    found = measured(pasts, ["b", "c", "d"])
    freezes = {host: rates.freeze_s for host, rates in found.items()}
    assert freezes == pytest.approx({"b": 0.7, "c": 0.75, "d": 0.75})
    assert {host: rates.samples for host, rates in found.items()} == {"b": 3, "c": 1, "d": 0}
    assert measured_link(found["c"], 1.0).bytes_per_s == pytest.approx(200 * MIB)
    assert measured_link(found["d"], 1.0).bytes_per_s == 0.0, "nothing is known of the way there"


def test_a_large_fleet_is_planned_in_a_moment_and_nothing_is_overbooked() -> None:
    choose = random.Random(1)  # noqa: S311  the same fleet every time
    racks = [f"r{number}" for number in range(20)]
    targets = [
        host(
            f"h{number:03}",
            labels={"rack": choose.choice(racks)},
            load=choose.random(),
            memory_available_bytes=12 * GIB,
        )
        for number in range(300)
    ]
    containers = [
        container(
            f"c{number:04}",
            choose.uniform(0.05, 1.5),
            labels={
                "lifeboat.priority": str(choose.randrange(5)),
                **({"lifeboat.apart": f"g{number % 50}"} if number % 3 else {}),
            },
        )
        for number in range(3000)
    ]
    best_s = min(timed(containers, targets) for _ in range(3))
    found = plan(containers, targets, domains=("rack",))
    check(found, host("a", labels={"rack": "r1"}), containers, targets)
    assert sum(item.target is not None for item in found.migrations) > 2500
    print(f"3000 containers on 300 hosts: {best_s:.2f} s")


def timed(containers: list[ContainerFacts], targets: list[HostFacts]) -> float:
    """Return how long a plan takes."""
    began_at = time.perf_counter()
    plan(containers, targets, domains=("rack",))
    return time.perf_counter() - began_at


NAMES = st.sampled_from([f"h{number}" for number in range(5)])
HOSTS = st.lists(
    st.builds(
        host,
        NAMES,
        verdict=st.sampled_from(
            [Verdict.HEALTHY, Verdict.HEALTHY, Verdict.HEALTHY, Verdict.SUSPECT, Verdict.FAILING]
        ),
        cordoned=st.sampled_from([False, False, False, True]),
        evacuating=st.sampled_from([False, False, False, True]),
        memory_available_bytes=st.integers(0, 16 * GIB),
        reserved_bytes=st.integers(0, 4 * GIB),
        held=st.dictionaries(st.sampled_from(["a", "z"]), st.integers(0, 2 * GIB)),
        disk_available_bytes=st.integers(0, 8 * GIB),
        criu=st.sampled_from(["4.2.1", "4.2.1", "4.3", "4.1"]),
        labels=st.dictionaries(st.just("rack"), st.sampled_from(["r1", "r2"])),
        ports=st.lists(st.sampled_from([80, 443]), max_size=1).map(tuple),
        apart=st.lists(st.sampled_from(["db", "mq"]), max_size=1).map(tuple),
        container_names=st.lists(st.sampled_from(["c0", "c1"]), max_size=1).map(tuple),
        image_ids=st.sampled_from([(), ("1",)]),
        load=st.floats(0, 2),
    ),
    max_size=5,
    unique_by=lambda item: item.host,
)
LABELS = st.fixed_dictionaries(
    {},
    optional={
        "lifeboat.priority": st.sampled_from(["1", "-1", "x"]),
        "lifeboat.evacuate": st.sampled_from(["no", "yes"]),
        "lifeboat.pin": st.sampled_from(["h0", "h0,h1", "h4"]),
        "lifeboat.forbid": st.sampled_from(["h0", "h1,h2"]),
        "lifeboat.require": st.sampled_from(["rack=r1", "rack=r2"]),
        "lifeboat.with": st.sampled_from(["shop", "crm"]),
        "lifeboat.apart": st.sampled_from(["db", "mq"]),
        "lifeboat.after": st.sampled_from(["c0", "c1,c2", "c5"]),
    },
)


@st.composite
def loads(draw: st.DrawFn) -> list[ContainerFacts]:
    """Return containers of different names."""
    found = []
    for number in range(draw(st.integers(0, 8))):
        found.append(
            container(
                f"c{number}",
                draw(st.floats(0, 4)),
                labels=draw(LABELS),
                disk_bytes=draw(st.integers(0, 2 * GIB)),
                published_ports=draw(st.sampled_from([(), (), (80,)])),
                pod=draw(st.sampled_from([None, None, pod()])),
                obstacles=draw(st.sampled_from([(), (), obstacles("no", "lazy"), obstacles("no", "lazy", "full")])),
            )
        )
    return found


@settings(max_examples=300, deadline=None)
@given(loads(), HOSTS, st.sampled_from(list(Method)), st.sampled_from([None, 5.0, 600.0]), st.randoms())
def test_what_holds_of_every_plan(
    containers: list[ContainerFacts],
    targets: list[HostFacts],
    method: Method,
    time_left_s: float | None,
    shuffle: random.Random,
) -> None:
    found = plan(containers, targets, method, time_left_s=time_left_s, domains=("rack",))
    check(found, host("a", labels={"rack": "r1"}), containers, targets)
    for values in (containers, targets):
        shuffle.shuffle(values)
    assert plan(containers, targets, method, time_left_s=time_left_s, domains=("rack",)) == found


def check(
    found: EvacuationPlan, source: HostFacts, containers: list[ContainerFacts], targets: list[HostFacts]
) -> None:
    """Say what must hold of a plan, in words that do not use the planner's own."""
    by_name = {item.name: item for item in containers}
    hosts = {target.host: target for target in targets}
    assert sorted(item.container for item in found.migrations) == sorted(by_name)  # each is told of once
    _check_room(found, by_name, hosts, source.host)
    seen: list[str] = []
    for item in found.migrations:
        facts = by_name[item.container]
        if item.target is None:
            _check_explained(item, facts, hosts)
        else:
            _check_fit(item, facts, hosts[item.target])
            assert item.container not in seen
        seen.append(item.container)
    _check_groups(found, by_name)


def _check_room(
    found: EvacuationPlan, by_name: dict[str, ContainerFacts], hosts: dict[str, HostFacts], source: str
) -> None:
    for name, facts in hosts.items():
        coming = [by_name[item.container] for item in found.migrations if item.target == name]
        if not coming:
            continue
        held = sum(size for holder, size in facts.held.items() if holder != source)
        taken = sum(item.memory_bytes for item in coming) + facts.reserved_bytes + held
        assert taken <= facts.memory_available_bytes - int(facts.memory_bytes * 0.1)
        assert sum(item.disk_bytes for item in coming) < facts.disk_available_bytes
        ports = [port for item in coming for port in item.published_ports] + list(facts.ports)
        assert len(ports) == len(set(ports))
        assert not {item.name for item in coming} & set(facts.container_names)


def _check_fit(item: PlannedMigration, facts: ContainerFacts, target: HostFacts) -> None:
    labels = {name.removeprefix("lifeboat."): value for name, value in facts.labels.items()}
    assert target.verdict is Verdict.HEALTHY
    assert not target.cordoned
    assert not target.evacuating
    assert labels.get("evacuate") != "no"
    assert target.host in labels.get("pin", target.host).split(",")
    assert target.host not in labels.get("forbid", "").split(",")
    if "require" in labels:
        assert target.labels.get("rack") == labels["require"].removeprefix("rack=")
    assert item.method not in facts.unsupported
    assert target.criu == "4.2.1" or (item.method is not Method.LAZY and target.criu == "4.3")
    assert target.host not in [rejection.host for rejection in item.rejections]


def _check_explained(item: PlannedMigration, facts: ContainerFacts, hosts: dict[str, HostFacts]) -> None:
    if hosts:
        assert item.reason
    if item.kept or set(facts.unsupported) == set(Method):
        return
    assert {rejection.host for rejection in item.rejections} == set(hosts)  # every one has its reason
    assert all(rejection.code and rejection.reason for rejection in item.rejections)


def _check_groups(found: EvacuationPlan, by_name: dict[str, ContainerFacts]) -> None:
    groups: dict[str, set[str | None]] = {}
    for item in found.migrations:
        facts = by_name[item.container]
        leaving = not item.kept and set(facts.unsupported) != set(Method)
        together = facts.labels.get("lifeboat.with", ""), facts.pod.id if facts.pod else ""
        for group in filter(None, together):
            if leaving:
                groups.setdefault(group, set()).add(item.target)
    assert all(len(where) == 1 for where in groups.values())
