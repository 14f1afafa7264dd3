"""Who belongs to the cluster, how one comes to belong, and what somebody gets who does not."""

from __future__ import annotations

import datetime
import json
import socket
import ssl
import time
from pathlib import Path

import pytest

from migrator.errors import LifeboatError, NotAllowedError, PeerError, PrerequisiteError, UsageError
from migrator.peers import joining, membership
from migrator.peers.authority import Pair, create_authority, issue, issue_ticket, life, make_request, write_secret
from migrator.peers.client import PeerClient
from migrator.peers.identity import Identity, Known, check_member
from migrator.peers.joining import JoinToken, RenewRequest
from migrator.peers.membership import PeerDirectory
from migrator.peers.roll import Peer, Roll, sign, verify
from migrator.peers.tls import OWN
from tests.pure.cluster import LOOPBACK, connect, free_port, listening, make_cluster, serving
from watchdog.cli.cluster import duration_s


@pytest.fixture
def hosts(tmp_path: Path) -> list[PeerDirectory]:
    """alpha, who holds the authority, beta and gamma."""
    return make_cluster(tmp_path, "alpha", "beta", "gamma")


def exchange(caller: PeerDirectory, peer: Peer) -> Roll:
    """Exchange rolls with a host."""
    return PeerClient(peer, caller.pki).call("POST", "/v1/peers", caller.roll, Roll, timeout_s=10)


def test_a_host_joins_by_a_token(hosts: list[PeerDirectory], tmp_path: Path) -> None:
    alpha, beta, _ = hosts
    with serving(alpha), serving(beta) as at_beta:
        token = str(joining.give_token(alpha.directory, "delta", 60))
        delta = joining.join_by_token(tmp_path / "delta", token, "delta", LOOPBACK)
        assert [peer.name for peer in delta.peers()] == ["alpha", "beta", "gamma"]
        assert alpha.peer("delta").address == LOOPBACK
        with pytest.raises(PeerError, match="no host of this cluster"):
            PeerClient(at_beta, delta.pki).facts()
        exchange(delta, at_beta)  # a newcomer brings the roll with its name in it along
        assert PeerClient(at_beta, delta.pki).facts().host == "beta"
        assert beta.roll == delta.roll == alpha.roll
    assert oct((delta.pki / OWN).stat().st_mode & 0o777) == "0o600"
    assert not (delta.pki / "ca.key").exists()


def test_a_token_is_good_once_for_its_host_and_its_time(hosts: list[PeerDirectory], tmp_path: Path) -> None:
    alpha = hosts[0]
    with serving(alpha):
        token = str(joining.give_token(alpha.directory, "delta", 60))
        with pytest.raises(PrerequisiteError, match="is for delta, not for epsilon"):
            joining.join_by_token(tmp_path / "epsilon", token, "epsilon", LOOPBACK)
        with pytest.raises(PrerequisiteError, match="in the cluster already"):
            joining.join_by_token(tmp_path / "other", token, "beta", LOOPBACK)
        joining.join_by_token(tmp_path / "delta", token, "delta", LOOPBACK)
        with pytest.raises(PrerequisiteError, match="already"):
            joining.join_by_token(tmp_path / "delta", token, "delta", LOOPBACK)
        with pytest.raises(PrerequisiteError, match="used by delta"):
            joining.join_by_token(tmp_path / "zeta", token, "zeta", LOOPBACK)
        short = str(joining.give_token(alpha.directory, "", 1))
        time.sleep(1.1)  # the certificate in it counts in whole seconds
        with pytest.raises(PeerError, match="cannot be reached"):
            joining.join_by_token(tmp_path / "zeta", short, "zeta", LOOPBACK)
    with pytest.raises(PrerequisiteError, match="authority's key is not on this host"):
        joining.give_token(hosts[1].directory, "delta", 60)
    with pytest.raises(UsageError, match="no name of a host"):
        joining.give_token(alpha.directory, "../delta", 60)


def test_a_token_opens_nothing_else(hosts: list[PeerDirectory], tmp_path: Path) -> None:
    alpha = hosts[0]
    with serving(alpha) as peer:
        token = joining.give_token(alpha.directory, "", 60)
        pki = tmp_path / "ticket/pki"
        write_secret(pki / OWN, token.ticket.key + token.ticket.certificate)
        write_secret(pki / "ca.crt", (alpha.pki / "ca.crt").read_bytes())
        client = PeerClient(peer, pki)
        with pytest.raises(PeerError, match="no host of this cluster"):
            client.facts()
        with pytest.raises(PeerError, match="joining only"):
            client.call("POST", "/v1/peers", alpha.roll, Roll, timeout_s=5)
        with pytest.raises(PeerError, match="no host of this cluster"):
            client.call("POST", "/v1/renew", RenewRequest(request=""), joining.Joined, timeout_s=5)


def test_a_token_finds_out_an_impostor(hosts: list[PeerDirectory], tmp_path: Path) -> None:
    """Somebody else answers at the authority's address: the fingerprint is not the token's."""
    (stranger,) = make_cluster(tmp_path / "elsewhere", "alpha")
    with serving(stranger) as peer:
        token = JoinToken.parse(str(joining.give_token(hosts[0].directory, "", 60)))
        misled = JoinToken(token.host, token.address, peer.port, token.fingerprint, token.ticket)
        with pytest.raises(PeerError):
            joining.join_by_token(tmp_path / "delta", str(misled), "delta", LOOPBACK)
    assert not (tmp_path / "delta/peers.json").exists()


@pytest.mark.parametrize(
    "word", ["", "x", "lifeboat1.", "lifeboat1.!!!", "lifeboat1.W10K", "lifeboat1." + "A" * 999]
)
def test_what_is_no_token(word: str) -> None:
    with pytest.raises(UsageError, match="no token"):
        JoinToken.parse(word)


def test_a_removed_host_gets_nothing(hosts: list[PeerDirectory]) -> None:
    alpha, beta, gamma = hosts
    with serving(beta) as at_beta:
        kept = PeerClient(at_beta, gamma.pki)  # its connection stays open over the removal
        assert kept.facts().host == "beta"
        membership.remove(alpha.directory, "gamma")
        exchange(alpha, at_beta)
        with pytest.raises(PeerError, match="is revoked"):
            kept.facts()
        with pytest.raises(PeerError, match="is revoked"):
            exchange(gamma, at_beta)
        assert PeerClient(at_beta, alpha.pki).facts().host == "beta"
    with pytest.raises(UsageError, match="is no host of this cluster"):
        beta.peer("gamma")


def test_a_removed_host_is_not_called_either(hosts: list[PeerDirectory]) -> None:
    alpha, beta, gamma = hosts
    with serving(gamma) as at_gamma:
        client = PeerClient(at_gamma, beta.pki)
        assert client.facts().host == "gamma"
        beta.learn(membership.remove(alpha.directory, "gamma"))
        with pytest.raises(PeerError, match="no host of this cluster any more"):
            client.facts()


def test_a_host_that_joins_again_leaves_its_old_certificate_behind(
    hosts: list[PeerDirectory], tmp_path: Path
) -> None:
    """As after a theft: the same name, a new key; who has the old one is nobody, as caller and as called."""
    alpha, beta, gamma = hosts
    stolen = (gamma.pki / OWN).read_bytes()
    membership.remove(alpha.directory, "gamma")
    again = membership.join(tmp_path / "gamma2", membership.invite(alpha.directory, "gamma", LOOPBACK))
    beta.learn(alpha.roll)
    thief = tmp_path / "thief/pki"
    write_secret(thief / OWN, stolen)
    write_secret(thief / "ca.crt", (alpha.pki / "ca.crt").read_bytes())
    with serving(beta) as at_beta:
        assert PeerClient(at_beta, again.pki).facts().host == "beta"
        with pytest.raises(PeerError, match="is revoked"):
            PeerClient(at_beta, thief).facts()
    with serving(gamma) as at_gamma, pytest.raises(PeerError, match="is revoked"):
        PeerClient(at_gamma, beta.pki).facts()


def forged(members: PeerDirectory, pair: Pair, authority: bytes) -> Path:
    """Return a directory with somebody's certificate."""
    pki = members.directory.parent / "forged/pki"
    write_secret(pki / OWN, pair.key + pair.certificate)
    write_secret(pki / "ca.crt", authority)
    return pki


def test_foreign_and_expired_certificates_get_nothing(hosts: list[PeerDirectory]) -> None:
    alpha, beta, _ = hosts
    authority = alpha.authority()
    foreign = create_authority("alpha")
    with serving(beta) as at_beta:
        for pair in (
            issue(foreign, "alpha", LOOPBACK),
            issue_ticket(authority, "alpha", datetime.timedelta(seconds=-1)),
        ):
            with pytest.raises(PeerError, match="cannot be reached"):
                PeerClient(at_beta, forged(alpha, pair, authority.certificate)).facts()
        unlisted = forged(alpha, issue(authority, "delta", LOOPBACK), authority.certificate)
        with pytest.raises(PeerError, match="no host of this cluster"):
            PeerClient(at_beta, unlisted).facts()
        assert asked_without_certificate(at_beta) == b""


def asked_without_certificate(peer: Peer) -> bytes:
    """Ask for facts with no certificate at all; return what comes back above TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    plain = socket.create_connection((LOOPBACK, peer.port), timeout=5)
    try:
        with context.wrap_socket(plain) as link:
            link.sendall(b"GET /v1/facts HTTP/1.1\r\nHost: beta\r\n\r\n")
            return link.recv(1000)
    except OSError:
        return b""


def test_a_certificate_that_ends_while_its_link_is_open() -> None:
    who = Identity("beta", "1f", expires_at=100.0)
    known = Known(frozenset({"beta"}), frozenset({"2f"}))
    check_member(who, known, now=99.0)
    with pytest.raises(NotAllowedError, match="has expired"):
        check_member(who, known, now=101.0)
    with pytest.raises(NotAllowedError, match="is revoked"):
        check_member(Identity("beta", "2f", 1e12), known)
    with pytest.raises(NotAllowedError, match="no host"):
        check_member(Identity("Beta", "3f", 1e12), known)


def test_only_the_authority_changes_the_roll(hosts: list[PeerDirectory]) -> None:
    alpha, beta, gamma = hosts
    with serving(beta) as at_beta:
        roll = gamma.roll
        moved = roll.peers[0].model_copy(update={"address": "192.0.2.1"})
        for changed in (
            roll.model_copy(update={"version": roll.version + 5}),
            roll.model_copy(update={"version": roll.version + 5, "peers": (moved, *roll.peers[1:])}),
            roll.model_copy(update={"version": roll.version + 5, "signature": ""}),
            sign(roll.model_copy(update={"version": roll.version + 5}), create_authority("alpha")),
        ):
            with pytest.raises(PeerError, match="was not signed"):
                PeerClient(at_beta, gamma.pki).call("POST", "/v1/peers", changed, Roll, timeout_s=5)
        old = roll.model_copy(update={"version": 0})
        assert PeerClient(at_beta, gamma.pki).call("POST", "/v1/peers", old, Roll, timeout_s=5) == beta.roll
    verify(beta.roll, (beta.pki / "ca.crt").read_bytes())
    with pytest.raises(PrerequisiteError, match="authority's key"):
        membership.remove(beta.directory, "gamma")
    with pytest.raises(UsageError, match="remove itself"):
        membership.remove(alpha.directory, "alpha")


def test_a_host_gets_a_new_certificate_for_a_new_key(hosts: list[PeerDirectory]) -> None:
    alpha, beta, gamma = hosts
    before = (beta.pki / OWN).read_bytes()
    with serving(alpha):
        beta.learn(alpha.roll)
        joining.renew(beta)
        joining.renew(alpha)
        stolen = RenewRequest(request=make_request("beta").certificate.decode())
        with pytest.raises(PrerequisiteError, match="asks for a certificate of"):
            PeerClient(alpha.peer("alpha"), gamma.pki).call(
                "POST", "/v1/renew", stolen, joining.Joined, timeout_s=5
            )
    after = (beta.pki / OWN).read_bytes()
    assert after != before
    since, until = life(after)
    assert not joining.due(beta, since)
    assert joining.due(beta, until - (until - since) / 2)
    with serving(beta) as at_beta:
        assert PeerClient(at_beta, alpha.pki).facts().host == "beta"
    alpha.learn(membership.remove(alpha.directory, "beta"))
    assert len(alpha.roll.revoked) == 2, "the old certificate and the new one"


def test_a_renewed_certificate_is_shown_without_a_restart(hosts: list[PeerDirectory]) -> None:
    alpha, beta, _ = hosts
    peer = listening(beta, free_port())
    from migrator.peers.server import PeerServer, build_app  # noqa: PLC0415  only here it is started by hand
    from tests.pure.cluster import host_facts  # noqa: PLC0415

    server = PeerServer(build_app(lambda: host_facts("beta")), beta.pki, LOOPBACK, peer.port)
    server.start()
    try:
        shown = [serial_at(alpha, peer)]
        with serving(alpha):
            beta.learn(alpha.roll)
            joining.renew(beta)
        server.renew()
        shown.append(serial_at(alpha, peer))
        assert shown[0] != shown[1]
    finally:
        server.stop()


def serial_at(caller: PeerDirectory, peer: Peer) -> str:
    """Return the serial number of the certificate a host shows."""
    with connect(caller, peer) as link:
        return str((link.getpeercert() or {})["serialNumber"])


@pytest.mark.parametrize("host", ["", "a b", "join 1", "../a", "-a", "a/b", "a\n", "a" * 300])
def test_what_no_host_can_be_called(tmp_path: Path, host: str) -> None:
    with pytest.raises(UsageError):
        membership.init(tmp_path, host, LOOPBACK)
    assert not list(tmp_path.iterdir())


def test_times_of_tokens() -> None:
    assert [duration_s(text) for text in ("30s", "15m", "2h", "7d")] == [30, 900, 7200, 604800]
    for text in ("", "0s", "8d", "1", "-1h", "1w"):
        with pytest.raises(LifeboatError):
            duration_s(text)


def test_the_roll_s_file_can_be_read_without_models(hosts: list[PeerDirectory]) -> None:
    """rsync's remote shell and migrator.peers.identity do so; this is what they rely on."""
    roll = json.loads((hosts[0].directory / "peers.json").read_bytes())["roll"]
    assert {peer["name"] for peer in roll["peers"]} == {"alpha", "beta", "gamma"}
    assert roll["revoked"] == []
    assert all({"address", "stream_port"} <= set(peer) for peer in roll["peers"])
