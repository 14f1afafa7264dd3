"""The peer API under schemathesis: every verb, from a host that means no good. No 500, and no file elsewhere.

The desk is the real one, on a machine whose podman is a script that knows of nothing: so offers are taken, and all
that can be said about a migration afterwards meets one that exists.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.strategies import SearchStrategy
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode

from migrator.engine import Engine
from migrator.health import Health
from migrator.peers.identity import Identity
from migrator.peers.server import build_app
from migrator.runtime import tombstone
from migrator.settings import MigratorSettings
from tests.pure.cluster import make_cluster
from watchdog.daemon.peering import authority_routes, newcomer_routes

EXAMPLES = int(os.environ.get("LIFEBOAT_FUZZ_EXAMPLES", "8"))  # for each verb; more find more

PODMAN = """\
#!/bin/sh
case "$1 $2" in
*" exists") exit 1 ;;
"volume inspect") echo '[{"Mountpoint": "%s/volume"}]' ;;
"info --format") echo '{"store": {"graphRoot": "/tmp", "runRoot": "/r", "volumePath": "/tmp/volumes"}}' ;;
*) echo "[]" ;;
esac
"""


class Client:
    """Calls an application without a network."""

    __test__ = False

    def __init__(self, app: Any) -> None:
        self._transport = httpx.ASGITransport(app)

    def request(self, verb: str, path: str, **options: Any) -> httpx.Response:
        """Call it once."""

        async def call() -> httpx.Response:
            async with httpx.AsyncClient(transport=self._transport, base_url="https://alpha") as client:
                return await client.request(verb, path, **options)

        return asyncio.run(call())

    def get(self, path: str) -> httpx.Response:
        """Ask for something."""
        return self.request("GET", path)

    def post(self, path: str, json: Any = None) -> httpx.Response:
        """Send something."""
        return self.request("POST", path, json=json)

    def delete(self, path: str) -> httpx.Response:
        """End something."""
        return self.request("DELETE", path)


MEMBER = Identity("beta", "1f", expires_at=1e12)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Beta:
    """The application, as beta meets it: TLS has told who calls."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.members, self.beta = make_cluster(place / "etc", "alpha", "beta")
        self.engine = Engine(
            host="alpha",
            settings=MigratorSettings(),
            state=place / "state",
            runtime=place / "run",
            peers=self.members,
            health=Health,
        )
        self.app = build_app(
            self.engine.facts,
            self.engine.peer_routes(),
            authority_routes(self.members),
            newcomers=[newcomer_routes(self.members)],
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer beta; the description is for the tests only."""
        if scope["type"] == "http" and scope["path"] == "/openapi.json":
            headers = [(b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": json.dumps(self.app.openapi()).encode()})
            return
        scope["identity"], scope["member"] = MEMBER, True
        await self.app(scope, receive, send)

    def files(self) -> set[str]:
        """Return where anything was written."""
        return {str(path.relative_to(self.place).parts[0]) for path in self.place.rglob("*")}


@pytest.fixture(scope="module")
def beta(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beta]:
    """Alpha's API."""
    place = tmp_path_factory.mktemp("api")
    (place / "bin").mkdir()
    (place / "volume").mkdir()
    podman = place / "bin/podman"
    podman.write_text(PODMAN % place)
    podman.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(place / "bin"))
        (place / "bin" / tombstone.HOOK).touch()
        patch.setattr(tombstone, "HOOK_DIRECTORIES", (place / "bin",))
        yield Beta(place)


@pytest.mark.parametrize("mode", list(GenerationMode), ids=str)
def test_no_verb_fails(beta: Beta, mode: GenerationMode) -> None:
    """What the description allows, and what it does not."""
    before = os.listdir("/")
    schema = schemathesis.openapi.from_asgi("/openapi.json", beta)
    operations = [cast(Any, found).ok() for found in schema.get_all_operations()]
    assert len(operations) >= 13
    for operation in operations:
        try:
            strategy = operation.as_strategy(generation_mode=mode)
            fuzz(strategy)
        except Unsatisfiable:
            assert mode is GenerationMode.NEGATIVE, "whatever is said to a verb without words is right"
    assert beta.files() <= {"bin", "volume", "etc", "state", "run"}
    assert os.listdir("/") == before


def fuzz(strategy: SearchStrategy[Any]) -> None:
    """Call one verb with whatever a strategy makes."""

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(strategy)
    def call(case: Any) -> None:
        case.validate_response(case.call(), checks=[not_a_server_error])

    call()


CONTAINER = {
    "id": "a" * 64, "name": "web", "image": "nginx", "image_id": "b" * 64, "runtime": "runc", "running": True,
}  # fmt: skip


def offer(client: Client, migration: str, **changes: object) -> Any:
    """Offer alpha a container."""
    proposal = {
        "migration": migration, "source": "beta", "container": CONTAINER, "method": "full", "copy_image": True,
        "epoch": 1,
    }  # fmt: skip
    return client.post("/v1/migrations", json={**proposal, **changes})


def test_a_migration_is_its_source_s_alone(beta: Beta) -> None:
    """Another host of the cluster, with a good certificate, can neither see it nor end it."""
    client = Client(beta)
    taken = offer(client, "d0d0")
    assert taken.status_code == 200, taken.text
    assert offer(client, "d0d1", source="alpha").status_code == 403
    beta.app.dependency_overrides.clear()
    gamma = Client(As(beta, Identity("gamma", "2f", 1e12)))
    for verb, path in (
        ("POST", "/commit"), ("POST", "/complete"), ("POST", "/restore"), ("DELETE", ""),
    ):  # fmt: skip
        answer = gamma.request(verb, f"/v1/migrations/d0d0{path}")
        assert (answer.status_code, answer.json()["code"]) == (409, "unknown-migration"), path
    assert gamma.get("/v1/migrations/d0d0").json()["standing"] == "unknown"
    assert gamma.post("/v1/migrations/d0d0/yield").json()["standing"] == "unknown"
    parked = {"configuration": "{}", "specification": "{}", "network_status": "{}"}
    assert gamma.post("/v1/migrations/d0d0/park", json=parked).json()["code"] == "unknown-migration"
    assert client.get("/v1/migrations/d0d0").json()["standing"] == "reserved"
    hold = {"source": "beta", "memory_bytes": 1, "seconds": 1}
    assert gamma.post("/v1/reservations", json=hold).status_code == 403
    assert client.delete("/v1/migrations/d0d0").json()["standing"] == "aborted"


def test_a_decision_is_told_to_the_target_only(beta: Beta) -> None:
    journal = beta.engine._journal  # what a migration away from here leaves there
    request = json.dumps({"container": CONTAINER, "target": "beta", "method": "lazy", "epoch": 1})
    from migrator.protocol.journal import Decision, Side  # noqa: PLC0415

    journal.begin("e0e0", Side.SOURCE, "web", request)
    journal.decide("e0e0", Decision.COMMIT)
    told = Client(beta).get("/v1/migrations/e0e0/decision").json()
    hidden = Client(As(beta, Identity("gamma", "2f", 1e12))).get("/v1/migrations/e0e0/decision").json()
    assert (told["decision"], hidden["decision"]) == ("commit", "")


class As:
    """The same application, as another caller meets it."""

    def __init__(self, beta: Beta, who: Identity | None, *, member: bool = True) -> None:
        self._app, self._who, self._member = beta.app, who, member

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the caller."""
        if self._who is not None:
            scope["identity"], scope["member"] = self._who, self._member
        await self._app(scope, receive, send)


@pytest.mark.parametrize("who", [None, Identity("delta", "3f", 1e12)], ids=["nobody", "stranger"])
def test_every_route_asks_who_calls(beta: Beta, who: Identity | None) -> None:
    """Also one that somebody will add: the list comes from the application."""
    client = Client(As(beta, who, member=False))
    open_to_strangers = {"/v1/authority", "/v1/peers", "/v1/join"} if who else set()
    for path, verbs in beta.app.openapi()["paths"].items():
        if path in open_to_strangers:
            continue
        for verb in verbs:
            answer = client.request(verb, path.replace("{migration}", "a0a0"), json={})
            assert answer.status_code in (403, 422), (verb, path, answer.text)
            assert answer.status_code == 403 or verb == "post"


def test_a_token_can_join_and_nothing_else(beta: Beta) -> None:
    client = Client(As(beta, Identity("join 00ff", "4f", 1e12), member=False))
    assert client.get("/v1/authority").status_code == 200
    roll = beta.members.roll.model_dump(mode="json")
    assert client.post("/v1/peers", json=roll).status_code == 403
    assert client.get("/v1/facts").status_code == 403
    assert Client(beta).post("/v1/join", json={"request": "", "address": "127.0.0.1"}).status_code == 403
    asked = client.post("/v1/join", json={"request": "x", "address": "127.0.0.1"})
    assert asked.json()["code"] == "bad-request"
