"""This host's doors to its peers: the API and the streams, both behind the cluster's certificates."""

from __future__ import annotations

import logging
import sys
import threading

from fastapi import APIRouter, Request

from migrator.command import run
from migrator.engine import Engine
from migrator.errors import LifeboatError, NotAllowedError
from migrator.peers import joining
from migrator.peers.client import PeerClient
from migrator.peers.joining import Authority, Joined, JoinRequest, RenewRequest
from migrator.peers.membership import PeerDirectory
from migrator.peers.roll import Peer, Roll
from migrator.peers.server import Member, PeerServer, build_app, caller
from migrator.peers.stream_server import StreamServer
from migrator.vital import vital_thread

GREET_S = 30.0  # how often a peer is told what we know; who is away learns it then
CERTIFICATE_LOOK_S = 3600.0
RENEWAL_LIMIT_S = 120.0
GREET_TIMEOUT_S = 10.0

_log = logging.getLogger(__name__)


class Peering:
    """Both servers, and the conversation about who belongs to the cluster."""

    def __init__(self, engine: Engine, members: PeerDirectory, address: str) -> None:
        own = members.peer(members.host)
        listen = address or own.address
        self._members = members
        app = build_app(
            engine.facts, engine.peer_routes(), authority_routes(members), newcomers=[newcomer_routes(members)]
        )
        self._api = PeerServer(app, members.pki, listen, own.port)
        self._streams = StreamServer(engine.stream_handlers(), members.pki, listen, own.stream_port)
        self._renewal = [sys.executable, "-m", "migrator.peers.renewal", str(members.directory)]
        self._stopping = threading.Event()

    def start(self) -> None:
        """Open both doors, and tell the peers that we are here."""
        self._api.start()
        self._streams.start()
        vital_thread("greet", self._greet_often).start()
        vital_thread("certificate", self._renew_in_time).start()

    def stop(self) -> None:
        """Close both doors."""
        self._stopping.set()
        self._streams.stop()
        self._api.stop()

    def _greet_often(self) -> None:
        """Exchange rolls with all peers; at once when ours has changed, for somebody may have been removed."""
        while True:
            version = self._members.roll.version
            for peer in self._members.peers():
                self._greet(peer)
            for _ in range(int(GREET_S)):
                if self._stopping.wait(1.0):
                    return
                if self._members.roll.version != version:
                    break

    def _greet(self, peer: Peer) -> None:
        try:
            client = PeerClient(peer, self._members.pki)
            self._members.learn(
                client.call("POST", "/v1/peers", self._members.roll, Roll, timeout_s=GREET_TIMEOUT_S)
            )
        except LifeboatError as error:
            _log.info("%s", error)

    def _renew_in_time(self) -> None:
        """Get a new certificate long before the old one ends."""
        while not self._stopping.wait(CERTIFICATE_LOOK_S):
            look = run(self._renewal, timeout_s=RENEWAL_LIMIT_S, check=False)
            if look.status:
                _log.warning("%s", look.errors.strip())
            elif look.output:
                _log.info("%s", look.output.strip())
            self._api.renew()


def authority_routes(members: PeerDirectory) -> APIRouter:
    """Return what the authority's host does for other hosts; anywhere else it is refused."""
    router = APIRouter()

    @router.post("/v1/renew")
    def renew(asked: RenewRequest, member: Member) -> Joined:
        return joining.recertify(members, member, asked)

    return router


def newcomer_routes(members: PeerDirectory) -> APIRouter:
    """Return what may be asked by those who are not on the roll yet, as far as we know."""
    router = APIRouter()

    @router.get("/v1/authority")
    def authority(request: Request) -> Authority:
        caller(request)
        return Authority(certificate=(members.pki / "ca.crt").read_text())

    @router.post("/v1/join")
    def join(asked: JoinRequest, request: Request) -> Joined:
        token = caller(request).token
        if not token:
            raise NotAllowedError("a host of the cluster needs not join", code="no-token")
        return joining.admit_by_token(members, token, asked)

    @router.post("/v1/peers")
    def exchange(roll: Roll, request: Request) -> Roll:
        """A newcomer brings the roll that has it on, signed; then it is known here too."""
        if caller(request).token:
            raise NotAllowedError("a token is good for joining only", code="token-only-joins")
        members.learn(roll)
        return members.roll

    return router
