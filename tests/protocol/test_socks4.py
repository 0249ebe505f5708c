"""SOCKS4 and 4a, byte for byte."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from socksy import errors
from socksy.protocol import socks4
from socksy.protocol.server import accept
from socksy.protocol.steps import REPLY, SECOND_REPLY

from .wire import APPLICATION, Conversations, Row, play, rows

CONNECT, BIND, ASSOCIATE = 1, 2, 3

REQUEST = b"\x04\x01\x00\x50\xc0\x00\x02\x01\x00"  # VN, CD, port, address, user id NUL
GRANTED = (b"\x00\x5a\x00\x00\x00\x00\x00\x00", REPLY)  # VN, CD, port, address
BOUND = ("0.0.0.0", 0)


def asking(host="192.0.2.1", port=80, command=CONNECT, **options):
    return lambda: socks4.handshake(command, host, port, **options)


def request_row(name, start, request):
    return Row(name, start, [request], [GRANTED], BOUND)


@rows(
    request_row("to an address", asking(), REQUEST),
    request_row("highest port", asking(port=65535), b"\x04\x01\xff\xff\xc0\x00\x02\x01\x00"),
    request_row(
        "with a user id", asking(user_id=b"alice"), b"\x04\x01\x00\x50\xc0\x00\x02\x01alice\x00"
    ),
    request_row(
        "with 255 bytes of user id",
        asking(user_id=b"\xff" * 255),
        b"\x04\x01\x00\x50\xc0\x00\x02\x01" + b"\xff" * 255 + b"\x00",
    ),
    request_row(
        "4a: to a name", asking("example"), b"\x04\x01\x00\x50\x00\x00\x00\x01\x00example\x00"
    ),
    request_row(
        "4a: with a user id",
        asking("example", user_id=b"alice"),
        b"\x04\x01\x00\x50\x00\x00\x00\x01alice\x00example\x00",
    ),
    request_row("BIND", asking(command=BIND), b"\x04\x02\x00\x50\xc0\x00\x02\x01\x00"),
    request_row(
        "BIND for anybody", asking("0.0.0.0", 0, BIND), b"\x04\x02\x00\x00\x00\x00\x00\x00\x00"
    ),
    request_row("4: to an address", asking(remote_dns=False), REQUEST),
    request_row("an IPv4-mapped address goes as IPv4", asking("::ffff:192.0.2.1"), REQUEST),
)
class TestRequests(Conversations):
    pass


@pytest.mark.trap(21)
@pytest.mark.parametrize("remote_dns", [False, True])
def test_an_address_goes_as_address_even_in_4a(remote_dns):
    said = []
    play(asking("192.0.2.1", remote_dns=remote_dns)(), GRANTED[0], said=said)

    assert said == [REQUEST]


@pytest.mark.trap(21)
@pytest.mark.parametrize("name", ["127.1", "0x7f.1", "1", "010.0.0.1"])
def test_what_only_inet_aton_takes_for_an_address_goes_as_name(name):
    said = []
    play(asking(name)(), GRANTED[0], said=said)

    assert said == [b"\x04\x01\x00\x50\x00\x00\x00\x01\x00" + name.encode() + b"\x00"]


@pytest.mark.trap(21)
@pytest.mark.parametrize(
    ("start", "text"),
    [
        (asking("2001:db8::1"), "no IPv6"),
        (asking("::"), "no IPv6"),
        (asking("example", remote_dns=False), "addresses only"),
        (asking(command=ASSOCIATE), "CONNECT and BIND only"),
        (asking(command=0xF0), "CONNECT and BIND only"),
    ],
)
def test_what_socks4_cannot_do_is_refused_before_anything_is_sent(start, text):
    with pytest.raises(errors.ProxyUnsupportedError, match=text) as caught:
        start()

    assert "socks" in caught.value.hint


@pytest.mark.trap(21)
@pytest.mark.parametrize("host", ["0.0.0.1", "0.0.0.255"])
def test_an_address_that_announces_a_name_is_refused(host):
    with pytest.raises(errors.InvalidTargetError):
        asking(host)()


# CD, port and address of a reply, and what they mean
GRANTS = [
    ("nothing bound", b"\x00\x5a\x00\x00\x00\x00\x00\x00", ("0.0.0.0", 0)),
    ("bound", b"\x00\x5a\x04\x38\xc0\x00\x02\x01", ("192.0.2.1", 1080)),
    ("version 4, as some servers say", b"\x04\x5a\x04\x38\xc0\x00\x02\x01", ("192.0.2.1", 1080)),
]
REFUSALS = [
    ("rejected", b"\x00\x5b\x00\x00\x00\x00\x00\x00", errors.TargetRefusedError),
    ("rejected in two bytes", b"\x00\x5b", errors.TargetRefusedError),
    ("no identd", b"\x00\x5c\x00\x00\x00\x00\x00\x00", errors.NotAllowedError),
    ("identd disagrees", b"\x00\x5d\x00\x00\x00\x00\x00\x00", errors.NotAllowedError),
    ("unknown", b"\x00\x00\x00\x00\x00\x00\x00\x00", errors.ProxyReplyError),
    ("not SOCKS4", b"HTTP/1.0 501 Tor is not an HTTP Proxy", errors.ProxyProtocolError),
]


@rows(
    *(Row(name, asking(), [REQUEST], [(data, REPLY)], bound) for name, data, bound in GRANTS),
    *(
        Row(name, socks4.second_reply, [], [(data, SECOND_REPLY)], peer)
        for name, data, peer in GRANTS
    ),
)
class TestGrants(Conversations):
    pass


@pytest.mark.trap(3, 5)
@rows(
    *(Row(name, asking(), [REQUEST], [(data, REPLY)], error, 2) for name, data, error in REFUSALS),
    *(
        Row(name, socks4.second_reply, [], [(data, SECOND_REPLY)], error, 2)
        for name, data, error in REFUSALS
    ),
)
class TestRefusals(Conversations):
    pass


@pytest.mark.trap(11)
def test_microsocks_answer_to_socks4_is_recognized_as_socks5():
    with pytest.raises(errors.ProxyProtocolError) as caught:
        play(asking()(), b"\x05\xff")

    assert "SOCKS5" in caught.value.hint


@settings(deadline=None)
@given(st.binary(max_size=12))
def test_any_reply_ends_in_a_result_or_in_an_error_of_ours(data):
    try:
        _, left = play(asking()(), data)
    except errors.ProxyError:
        return

    assert left == data[8:]


# The server's side


@pytest.mark.parametrize(
    ("data", "command", "target", "username"),
    [
        (REQUEST, CONNECT, ("192.0.2.1", 80), ""),
        (b"\x04\x02\x00\x50\xc0\x00\x02\x01alice\x00", BIND, ("192.0.2.1", 80), "alice"),
        (b"\x04\x09\x00\x50\x00\x00\x00\x00\x00", 9, ("0.0.0.0", 80), ""),
        (b"\x04\x01\x00\x50\x00\x00\x00\x01\x00example\x00", CONNECT, ("example", 80), ""),
        (b"\x04\x01\xff\xff\x00\x00\x00\xff\xff\x00a\x00", CONNECT, ("a", 65535), "\ufffd"),
        (b"\x04\x01\x00\x50\x00\x00\x00\x01\x00\x00", CONNECT, ("", 80), ""),
        (b"\x04\x01\x00\x50\x00\x00\x00\x01\x00\xff\x00", CONNECT, ("\\xff", 80), ""),
        (
            b"\x04\x01\x00\x50\x00\x00\x00\x01" + b"u" * 255 + b"\x00" + b"n" * 255 + b"\x00",
            CONNECT,
            ("n" * 255, 80),
            "u" * 255,
        ),
    ],
)
@pytest.mark.parametrize("behind", [b"", APPLICATION, b"\x00"])
def test_a_request_is_read_up_to_its_last_byte(data, command, target, username, behind):
    """A client may send application bytes at once (privoxy's socks5t does)."""
    for cuts in [(), range(1, len(data))]:
        request, left = play(accept(), data + behind, cuts)

        assert (request.host, request.port) == target
        assert (request.protocol, request.command) == ("SOCKS4", command)
        assert (request.username, left) == (username, behind)


@pytest.mark.parametrize(
    ("field", "data"),
    [
        ("the user id", b"\x04\x01\x00\x50\xc0\x00\x02\x01" + b"u" * 256),
        ("the name", b"\x04\x01\x00\x50\x00\x00\x00\x01\x00" + b"n" * 256),
    ],
)
def test_a_field_without_end_is_given_up(field, data):
    for cuts in [(), range(1, len(data))]:
        with pytest.raises(errors.ProxyProtocolError, match=f"{field} has no end"):
            play(accept(), data + b"\x00", cuts)


def test_where_a_login_is_required_a_client_is_told_that_socks4_has_none():
    said = []
    with pytest.raises(errors.ProxyProtocolError, match="login is required"):
        play(accept(lambda username, password: True), REQUEST, said=said)

    assert said == [b"\x00\x5b\x00\x00\x00\x00\x00\x00"]


@pytest.mark.parametrize(("host", "port"), [("192.0.2.1", 1080), ("0.0.0.0", 0)])
def test_a_reply_is_read_as_it_was_made(host, port):
    assert play(socks4.second_reply(), socks4.reply(0x5A, host, port)).result == (host, port)


@pytest.mark.parametrize("host", ["example", "2001:db8::1", ""])
def test_what_a_reply_cannot_express_becomes_unspecified(host):
    assert socks4.reply(0x5A, host, 1080) == b"\x00\x5a\x04\x38\x00\x00\x00\x00"
