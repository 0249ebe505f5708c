"""The server's side, and both sides turned against each other."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from socksy import errors
from socksy.protocol import Leg, bind_peer, tunnel
from socksy.protocol.codes import Command, Reply
from socksy.protocol.server import Request, accept, reply_bytes
from socksy.protocol.steps import Step
from socksy.proxy import HTTP, SCHEMES, SOCKS4, SOCKS4A, SOCKS5, SOCKS5H, Proxy

from .wire import APPLICATION, ConnectionPair, play, served

BOUND = ("192.0.2.1", 1080)
PEER = ("192.0.2.2", 20)
NAMES = ["example.com", "a", "n" * 255, "xn--bcher-kva.example", "a_b.example."]
IPV4 = ["192.0.2.9", "255.255.255.255"]
IPV6 = ["2001:db8::9", "::1"]
CHUNKS = [1, 2, 3, 5, 7, 65536]


def sesame(username, password):
    return (username, password) == (b"alice", b"sesame")


def targets(scheme):
    """What can be asked through a scheme; the local lookup of names comes before all this."""
    hosts = IPV4 + (NAMES if scheme in (SOCKS4A, SOCKS5H, HTTP) else [])
    return hosts + (IPV6 if scheme in (SOCKS5, SOCKS5H, HTTP) else [])


def protocol(scheme):
    return "HTTP" if scheme == HTTP else scheme[:6].upper()


def pair(proxy, host, port=80, command=Command.CONNECT, chunk=65536, **options):
    client = tunnel(((proxy, host, port),), command)
    return ConnectionPair(client, served(bound=BOUND, **options), chunk).rotor()


CONNECTIONS = [(scheme, host) for scheme in SCHEMES for host in targets(scheme)]


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize(("scheme", "host"), CONNECTIONS)
class TestBothSides:
    def check(self, turned, scheme, host, username):
        assert turned.client == (("0.0.0.0", 0) if scheme == HTTP else BOUND)
        assert (turned.server.protocol, turned.server.command) == (protocol(scheme), 1)
        assert (turned.server.host, turned.server.port) == (host, 80)
        assert turned.server.username == username
        assert (turned.to_client, turned.to_server) == (b"", b"")

    def test_agree(self, scheme, host, chunk):
        turned = pair(Proxy(scheme, "a"), host, chunk=chunk)

        self.check(turned, scheme, host, "" if "4" in scheme else None)

    def test_agree_with_a_login(self, scheme, host, chunk):
        if scheme in (SOCKS4, SOCKS4A):
            turned = pair(Proxy(scheme, "a", username="alice"), host, chunk=chunk)
        else:
            proxy = Proxy(scheme, "a", username="alice", password="sesame")
            turned = pair(proxy, host, chunk=chunk, check=sesame)

        self.check(turned, scheme, host, "alice")


@pytest.mark.trap(13)
@pytest.mark.parametrize("scheme", [SOCKS5H, HTTP])
def test_credentials_are_not_looked_at_where_no_login_is_wanted(scheme):
    turned = pair(Proxy(scheme, "a", username="mallory", password="x"), "example.com")

    assert turned.server.username is None


@pytest.mark.trap(13)
def test_require_auth_refuses_where_no_login_is_wanted():
    proxy = Proxy(SOCKS5H, "a", username="alice", password="sesame", require_auth=True)
    turned = pair(proxy, "example.com")

    assert isinstance(turned.client, errors.ProxyAuthenticationError)
    assert isinstance(turned.server, errors.ProxyProtocolError)


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("scheme", [SOCKS5H, HTTP])
@pytest.mark.parametrize("login", [{}, {"username": "alice", "password": "Sesame"}])
def test_a_wrong_login_is_refused_on_both_sides(scheme, login, chunk):
    turned = pair(Proxy(scheme, "a", **login), "example.com", chunk=chunk, check=sesame)

    assert isinstance(turned.client, errors.ProxyAuthenticationError)
    assert isinstance(turned.server, errors.ProxyError)


@pytest.mark.trap(16)
@pytest.mark.parametrize(("username", "password"), [("", ""), ("u" * 255, "p" * 255), ("\0", "ä")])
def test_a_login_may_be_of_any_length_and_of_any_bytes(username, password):
    seen = []
    proxy = Proxy(SOCKS5H, "a", username=username, password=password, allow_empty_username=True)
    turned = pair(proxy, "example.com", check=lambda *login: seen.append(login) or True)

    assert turned.client == BOUND
    assert seen == [(username.encode(), password.encode())]


@pytest.mark.parametrize("scheme", [SOCKS4, SOCKS4A])
def test_socks4_does_not_get_in_where_a_login_is_required(scheme):
    turned = pair(Proxy(scheme, "a", username="alice"), "192.0.2.9", check=sesame)

    assert isinstance(turned.client, errors.TargetRefusedError)
    assert isinstance(turned.server, errors.ProxyProtocolError)


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("scheme", [SOCKS4, SOCKS4A, SOCKS5, SOCKS5H])
def test_both_replies_to_a_bind_are_understood(scheme, chunk):
    legs: tuple[Leg, ...] = ((Proxy(scheme, "a"), "192.0.2.9", 20),)

    def client():
        bound = yield from tunnel(legs, Command.BIND)
        peer = yield from bind_peer(legs)
        return bound, peer

    turned = ConnectionPair(client(), served(bound=BOUND, peer=PEER), chunk).rotor()

    assert turned.client == (BOUND, PEER)
    assert turned.server.command == Command.BIND


@pytest.mark.parametrize(
    "command", [Command.UDP_ASSOCIATE, Command.RESOLVE, Command.RESOLVE_PTR, 0x42]
)
def test_any_command_reaches_a_socks5_server(command):
    turned = pair(Proxy(SOCKS5H, "a"), "192.0.2.9", 0, command)

    assert (turned.server.command, turned.server.port) == (command, 0)


@pytest.mark.parametrize("code", range(1, 256))
def test_any_refusal_arrives(code):
    assert pair(Proxy(SOCKS5H, "a"), "a", code=code).client.code == code
    assert isinstance(pair(Proxy(SOCKS4A, "a"), "a", code=code).client, errors.TargetRefusedError)
    assert isinstance(pair(Proxy(HTTP, "a"), "a", code=code).client, errors.ProxyReplyError)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (Reply.NOT_ALLOWED, errors.NotAllowedError),
        (Reply.TTL_EXPIRED, errors.ProxyTTLExpiredError),
        (Reply.COMMAND_NOT_SUPPORTED, errors.CommandNotSupportedError),
        (Reply.HOST_UNREACHABLE, errors.HostUnreachableError),
        (Reply.CONNECTION_REFUSED, errors.HostUnreachableError),
    ],
)
def test_http_has_its_nearest_status(code, error):
    assert type(pair(Proxy(HTTP, "a"), "example.com", code=code).client) is error


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("first", SCHEMES)
@pytest.mark.parametrize("second", SCHEMES)
def test_a_chain_of_two_is_served_by_one_after_the_other(first, second, chunk):
    legs = ((Proxy(first, "a"), "192.0.2.9", 3128), (Proxy(second, "192.0.2.9", 3128), *PEER))

    def servers():
        near = yield from served(bound=BOUND)
        far = yield from served(bound=BOUND)
        return near, far

    turned = ConnectionPair(tunnel(legs), servers(), chunk).rotor()
    near, far = turned.server

    assert (near.protocol, near.host, near.port) == (protocol(first), "192.0.2.9", 3128)
    assert (far.protocol, far.host, far.port) == (protocol(second), *PEER)


@settings(deadline=None)
@given(
    st.sampled_from(CONNECTIONS),
    st.integers(1, 65535),
    st.integers(1, 400),
    st.binary(max_size=20),
)
def test_the_target_may_speak_first(connection, port, chunk, banner):
    scheme, host = connection

    def talkative():
        request = yield from served(bound=BOUND)
        yield Step(banner, 0, "what the target says")
        return request

    client = tunnel(((Proxy(scheme, "a"), host, port),))
    turned = ConnectionPair(client, talkative(), chunk).rotor()

    assert (turned.server.host, turned.server.port) == (host, port)
    assert turned.to_client == banner


# What else may come


@pytest.mark.parametrize(
    "data", [b"\x00\x01", b"\x06\x01", b"\x16\x03", b"G\x05", b"\x80\x81", b"12"]
)
def test_another_protocol_is_refused_without_a_word(data):
    said = []
    with pytest.raises(errors.ProxyProtocolError, match=f"{data[0]:#04x}"):
        play(accept(), data + APPLICATION, said=said)

    assert said == []


@settings(deadline=None)
@given(
    st.sampled_from([b"", b"\x05", b"\x05\x01\x00", b"\x04", b"\x04\x01\0P\0\0\0\1", b"CONNECT "]),
    st.binary(max_size=300),
    st.sampled_from([None, sesame, lambda username, password: True]),
)
def test_any_client_ends_in_a_request_or_in_an_error_of_ours(start, data, check):
    data = start + data
    try:
        request, left = play(accept(check), data)
    except errors.ProxyError:
        return

    assert isinstance(request, Request)
    assert data.endswith(left)


@pytest.mark.parametrize(
    ("protocol", "answer"),
    [
        ("SOCKS5", b"\x05\x05\x00\x01\xc0\x00\x02\x01\x04\x38"),
        ("SOCKS4", b"\x00\x5b\x04\x38\xc0\x00\x02\x01"),
        ("HTTP", b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
    ],
)
def test_an_answer_is_in_the_protocol_of_the_request(protocol, answer):
    request = Request(protocol, 1, "example", 80)

    assert reply_bytes(request, Reply.CONNECTION_REFUSED, *BOUND) == answer


def test_a_request_keeps_what_was_asked():
    request = Request("SOCKS5", 1, "example", 80, username="alice")

    assert (request.protocol, request.command) == ("SOCKS5", 1)
    assert (request.host, request.port, request.username) == ("example", 80, "alice")


def test_nobody_has_logged_in_by_default():
    assert Request("HTTP", 1, "example", 80).username is None


def test_its_repr_does_not_tell_who_asked():
    request = Request("SOCKS5", 3, "example", 80, username="alice")

    assert repr(request) == "<Request SOCKS5 command 3 example:80>"
