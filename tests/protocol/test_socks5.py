"""SOCKS5, byte for byte (RFC 1928, RFC 1929)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from socksy import errors
from socksy.protocol import socks5
from socksy.protocol.server import accept
from socksy.protocol.socks5 import pack_address
from socksy.protocol.steps import LOGIN_ANSWER, METHOD_CHOICE, REPLY, SECOND_REPLY

from .wire import APPLICATION, Conversations, Row, play, rows

CONNECT, BIND, ASSOCIATE, RESOLVE, RESOLVE_PTR = 1, 2, 3, 0xF0, 0xF1

GREETING = b"\x05\x01\x00"  # VER, one method: no authentication
GREETING_WITH_LOGIN = b"\x05\x02\x00\x02"  # VER, two methods: none, user name and password
GREETING_LOGIN_ONLY = b"\x05\x01\x02"
NO_LOGIN_NEEDED = (b"\x05\x00", METHOD_CHOICE)  # VER, METHOD
LOGIN_WANTED = (b"\x05\x02", METHOD_CHOICE)
LOGIN = b"\x01\x05alice\x06sesame"  # VER, ULEN, UNAME, PLEN, PASSWD
LOGIN_FINE = (b"\x01\x00", LOGIN_ANSWER)  # VER, STATUS
REQUEST = b"\x05\x01\x00\x03\x07example\x00\x50"  # VER, CMD, RSV, ATYP, length, name, port
SUCCESS = (b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00", REPLY)  # VER, REP, RSV, ATYP, 0.0.0.0, 0
BOUND = ("0.0.0.0", 0)


def anonymous(host="example", port=80, command=CONNECT):
    return lambda: socks5.handshake(command, host, port)


def alice(**options):
    return lambda: socks5.handshake(CONNECT, "example", 80, login=(b"alice", b"sesame"), **options)


def request_row(name, host, address, command=CONNECT, port=80):
    request = bytes([5, command, 0]) + address
    hears = [NO_LOGIN_NEEDED, SUCCESS]
    return Row(name, anonymous(host, port, command), [GREETING, request], hears, BOUND)


@rows(
    request_row("to a name", "example", b"\x03\x07example\x00\x50"),
    request_row("to an IPv4 address", "192.0.2.1", b"\x01\xc0\x00\x02\x01\x00\x50"),
    request_row(
        "to an IPv6 address", "2001:db8::1", b"\x04 \x01\r\xb8" + bytes(11) + b"\x01\0\x50"
    ),
    request_row("BIND", "192.0.2.1", b"\x01\xc0\x00\x02\x01\x00\x50", BIND),
    request_row("UDP ASSOCIATE", "0.0.0.0", b"\x01\x00\x00\x00\x00\x00\x00", ASSOCIATE, 0),
    request_row("Tor's RESOLVE", "example", b"\x03\x07example\x00\x00", RESOLVE, 0),
    request_row("Tor's RESOLVE_PTR", "192.0.2.1", b"\x01\xc0\x00\x02\x01\x00\x00", RESOLVE_PTR, 0),
    request_row("highest port", "example", b"\x03\x07example\xff\xff", port=65535),
)
class TestRequests(Conversations):
    pass


@pytest.mark.trap(12, 13, 14)
@rows(
    Row(
        "without credentials only 'no authentication' is offered",
        anonymous(),
        [GREETING, REQUEST],
        [NO_LOGIN_NEEDED, SUCCESS],
        BOUND,
    ),
    Row(
        "with credentials both are offered, and the server may want the login",
        alice(),
        [GREETING_WITH_LOGIN, LOGIN, REQUEST],
        [LOGIN_WANTED, LOGIN_FINE, SUCCESS],
        BOUND,
    ),
    Row(
        "with credentials both are offered, and the server may not want the login",
        alice(),
        [GREETING_WITH_LOGIN, REQUEST],
        [NO_LOGIN_NEEDED, SUCCESS],
        BOUND,
    ),
    Row(
        "require_auth offers the login only",
        alice(require_auth=True),
        [GREETING_LOGIN_ONLY, LOGIN, REQUEST],
        [LOGIN_WANTED, LOGIN_FINE, SUCCESS],
        BOUND,
    ),
    Row(
        "require_auth refuses a server that picks no authentication all the same",
        alice(require_auth=True),
        [GREETING_LOGIN_ONLY],
        [NO_LOGIN_NEEDED],
        errors.ProxyAuthenticationError,
        judged=2,
    ),
    Row(
        "no acceptable method",
        anonymous(),
        [GREETING],
        [(b"\x05\xff", METHOD_CHOICE)],
        errors.ProxyAuthenticationError,
        judged=2,
    ),
    Row(
        "no acceptable method in spite of a login",
        alice(),
        [GREETING_WITH_LOGIN],
        [(b"\x05\xff", METHOD_CHOICE)],
        errors.ProxyAuthenticationError,
        judged=2,
    ),
)
class TestMethodChoices(Conversations):
    pass


def not_offered(name, method, start=None, greeting=GREETING):
    hears = [(bytes([5, method]), METHOD_CHOICE)]
    return Row(name, start or anonymous(), [greeting], hears, errors.ProxyProtocolError, judged=2)


@pytest.mark.trap(15)
@rows(
    not_offered("a login although there are no credentials", 2),
    not_offered("GSSAPI", 1),
    not_offered("GSSAPI in spite of credentials", 1, alice(), GREETING_WITH_LOGIN),
    not_offered("a private method", 0x80),
)
class TestMethodsThatWereNotOffered(Conversations):
    pass


def login_row(name, answer, result, judged=None):
    says = [GREETING_WITH_LOGIN, LOGIN] + ([REQUEST] if judged is None else [])
    hears = [LOGIN_WANTED, (answer, LOGIN_ANSWER)] + ([SUCCESS] if judged is None else [])
    return Row(name, alice(), says, hears, result, judged)


@pytest.mark.trap(9)
@rows(
    login_row("accepted", b"\x01\x00", BOUND),
    login_row("accepted by a server that says 5 for the version", b"\x05\x00", BOUND),
    login_row("refused", b"\x01\x01", errors.ProxyAuthenticationError, judged=2),
    login_row("refused with another number", b"\x01\xff", errors.ProxyAuthenticationError, 2),
    login_row(
        "refused by Tor in the shape of a reply",
        b"\x05\x01\x00\x01\x00\x00\x00\x00\x00\x00",
        errors.ProxyAuthenticationError,
        judged=2,
    ),
    login_row("nonsense", b"\x48\x54", errors.ProxyProtocolError, judged=2),
)
class TestLoginAnswers(Conversations):
    pass


def at_once(name, start, message, hears, result, judged=None):
    return Row(name, start, [message], hears, result, judged)


@rows(
    at_once(
        "without a login",
        lambda: socks5.handshake(CONNECT, "example", 80, pipelined=True),
        GREETING + REQUEST,
        [NO_LOGIN_NEEDED, SUCCESS],
        BOUND,
    ),
    at_once(
        "with a login and early data",
        alice(require_auth=True, pipelined=True, early_data=b"first"),
        b"\x05\x01\x02" + LOGIN + REQUEST + b"first",
        [LOGIN_WANTED, LOGIN_FINE, SUCCESS],
        BOUND,
    ),
    at_once(
        "the request is refused",
        lambda: socks5.handshake(CONNECT, "example", 80, pipelined=True),
        GREETING + REQUEST,
        [NO_LOGIN_NEEDED, (b"\x05\x05\x00\x01", REPLY)],
        errors.TargetRefusedError,
        2,
    ),
    at_once(
        "the login is refused",
        alice(require_auth=True, pipelined=True),
        b"\x05\x01\x02" + LOGIN + REQUEST,
        [LOGIN_WANTED, (b"\x01\x01", LOGIN_ANSWER)],
        errors.ProxyAuthenticationError,
        2,
    ),
    at_once(
        "the login is not wanted",
        alice(require_auth=True, pipelined=True),
        b"\x05\x01\x02" + LOGIN + REQUEST,
        [NO_LOGIN_NEEDED],
        errors.ProxyAuthenticationError,
        2,
    ),
    at_once(
        "a login is wanted, and there is none",
        lambda: socks5.handshake(CONNECT, "example", 80, pipelined=True),
        GREETING + REQUEST,
        [(b"\x05\xff", METHOD_CHOICE)],
        errors.ProxyAuthenticationError,
        2,
    ),
    at_once(
        "Tor swallows the method choice",
        alice(require_auth=True, pipelined=True),
        b"\x05\x01\x02" + LOGIN + REQUEST,
        [(b"\x01\x00", METHOD_CHOICE)],
        errors.ProxyProtocolError,
        2,
    ),
)
class TestAtOnce(Conversations):
    """Pipelined: one message, however many answers."""


@pytest.mark.trap(16, 18)
@pytest.mark.parametrize(
    ("username", "password", "message"),
    [
        (b"alice", b"sesame", LOGIN),
        (b"alice", b"", b"\x01\x05alice\x00"),
        (b"", b"", b"\x01\x00\x00"),
        (b"u" * 128, b"p", b"\x01\x80" + b"u" * 128 + b"\x01p"),
        (b"u" * 255, b"p" * 255, b"\x01\xff" + b"u" * 255 + b"\xff" + b"p" * 255),
        (b"\x00\xff", b"\r\n", b"\x01\x02\x00\xff\x02\r\n"),
    ],
)
def test_a_login_counts_its_bytes(username, password, message):
    said = []
    assert play(socks5.username_password(username, password), b"\x01\x00", said=said).left == b""

    assert said == [message]


# What BND.ADDR and BND.PORT may be: (name, ATYP and address, bound address)
BOUND_ADDRESSES = [
    ("IPv4", b"\x01\xc0\x00\x02\x01\x04\x38", ("192.0.2.1", 1080)),
    ("IPv4, unspecified", b"\x01\x00\x00\x00\x00\x00\x00", ("0.0.0.0", 0)),  # trap 7
    ("IPv6", b"\x04 \x01\r\xb8" + bytes(11) + b"\x01\x04\x38", ("2001:db8::1", 1080)),
    ("IPv6, unspecified", b"\x04" + bytes(18), ("::", 0)),
    ("IPv4-mapped", b"\x04" + bytes(10) + b"\xff\xff\xc0\0\2\1\x04\x38", ("192.0.2.1", 1080)),
    ("a name", b"\x03\x07example\x04\x38", ("example", 1080)),
    ("a name of no byte", b"\x03\x00\x00\x00", ("", 0)),
    ("a name of 1 byte", b"\x03\x01a\x04\x38", ("a", 1080)),
    ("a name of 2 bytes", b"\x03\x02ab\x04\x38", ("ab", 1080)),
    ("a name of 255 bytes", b"\x03\xff" + b"a" * 255 + b"\x04\x38", ("a" * 255, 1080)),
    ("a name in UTF-8", b"\x03\x02\xc3\xa4\x04\x38", ("ä", 1080)),
    ("a name in no encoding", b"\x03\x01\xff\x04\x38", ("\\xff", 1080)),
]


@pytest.mark.trap(6, 7)
@rows(
    *(
        Row(
            name,
            anonymous(),
            [GREETING, REQUEST],
            [NO_LOGIN_NEEDED, (b"\x05\x00\x00" + address, REPLY)],
            bound,
        )
        for name, address, bound in BOUND_ADDRESSES
    )
)
class TestSuccesses(Conversations):
    pass


@rows(
    *(
        Row(name, socks5.second_reply, [], [(b"\x05\x00\x00" + address, SECOND_REPLY)], peer)
        for name, address, peer in BOUND_ADDRESSES
    ),
    Row(
        "nobody came",
        socks5.second_reply,
        [],
        [(b"\x05\x06\x00\x01" + bytes(6), SECOND_REPLY)],
        errors.ProxyTTLExpiredError,
        judged=2,
    ),
)
class TestSecondReplies(Conversations):
    pass


def refused(name, answer, error):
    hears = [NO_LOGIN_NEEDED, (answer, REPLY)]
    return Row(name, anonymous(), [GREETING, REQUEST], hears, error, judged=2)


@pytest.mark.trap(3, 5, 10)
@rows(
    refused("two bytes", b"\x05\x01", errors.ProxyReplyError),
    refused("three bytes, as some providers send", b"\x05\x02\x00", errors.NotAllowedError),
    refused("address type 0", b"\x05\x03\x00\x00", errors.NetworkUnreachableError),
    refused("Tor's for RESOLVE_PTR", b"\x05\x04" + bytes(8), errors.HostUnreachableError),
    refused("with IPv4", b"\x05\x05\x00\x01" + bytes(6), errors.TargetRefusedError),
    refused("with IPv6", b"\x05\x06\x00\x04" + bytes(18), errors.ProxyTTLExpiredError),
    refused("Dante's, with the name", b"\x05\x04\0\x03\x07example\0P", errors.HostUnreachableError),
    refused("a name longer than it is", b"\x05\x07\x00\x03\xff", errors.CommandNotSupportedError),
    refused("a page of garbage", b"\x05\x08" + b"?" * 99, errors.AddressTypeNotSupportedError),
    refused("Tor's F0", b"\x05\xf0\x00\x01" + bytes(6), errors.HostUnreachableError),
    refused("Tor's F5", b"\x05\xf5\x00\x01" + bytes(6), errors.NotAllowedError),
    refused("unknown", b"\x05\x2a\x00\x01" + bytes(6), errors.ProxyReplyError),
)
class TestRefusals(Conversations):
    pass


@pytest.mark.parametrize("answer", [b"\x05\x00\x00\x03\x00\x00\x00", SUCCESS[0]])
def test_no_step_of_a_client_asks_for_nothing(answer):
    """The shortest reply, with a name of no byte, is complete at once."""
    handshake = anonymous()()
    needs = [next(handshake).need, handshake.send(b"\x05\x00").need]
    with pytest.raises(StopIteration):
        while True:
            start = sum(needs[1:-1])
            needs.append(handshake.send(answer[start : start + needs[-1]]).need)

    assert needs[0] == 2
    assert sum(needs[1:]) == len(answer)
    assert 0 not in needs


def test_a_refusal_says_what_was_refused_and_why():
    with pytest.raises(errors.TargetRefusedError) as caught:
        play(anonymous()(), b"\x05\x00\x05\x05")

    assert (caught.value.code, caught.value.protocol) == (5, "SOCKS5")
    assert caught.value.reply == "connection refused"
    assert caught.value.phase == REPLY


@pytest.mark.trap(8)
@pytest.mark.parametrize("reserved", [1, 5, 255])
def test_a_reserved_byte_that_is_not_zero_does_no_harm(reserved):
    reply = bytes([5, 0, reserved]) + b"\x01\xc0\x00\x02\x01\x04\x38"

    assert play(anonymous()(), b"\x05\x00" + reply).result == ("192.0.2.1", 1080)


@pytest.mark.parametrize("atyp", [0, 2, 5, 255])
def test_a_success_with_an_unknown_address_type_breaks_the_protocol(atyp):
    """Nobody knows where it ends and the application's bytes begin."""
    with pytest.raises(errors.ProxyProtocolError, match=f"address type {atyp:#04x}") as caught:
        play(anonymous()(), b"\x05\x00" + bytes([5, 0, 0, atyp]) + bytes(30))

    assert caught.value.phase == REPLY


@pytest.mark.trap(11)
@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "HTTP proxy"),
        (b"\x15\x03\x01\x00\x02", "TLS"),
        (b"\x16\x03\x01\x00\x02", "TLS"),
        (b"\x00\x5b\x00\x00", "SOCKS4"),
        (b"\x04\x5b\x00\x00", "SOCKS4"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "SSH server"),
        (b"\xff\xfb\x01", None),
    ],
)
def test_a_server_of_another_protocol_is_recognized_by_its_first_byte(answer, hint):
    with pytest.raises(errors.ProxyProtocolError) as caught:
        play(anonymous()(), answer)

    assert f"{answer[0]:#04x}" in caught.value.strerror
    assert caught.value.phase == METHOD_CHOICE
    assert (hint or "") in (caught.value.hint or "")
    assert (caught.value.hint is None) == (hint is None)


def test_the_reply_too_must_be_of_version_5():
    with pytest.raises(errors.ProxyProtocolError) as caught:
        play(anonymous()(), b"\x05\x00\x04\x00\x00\x01" + bytes(6))

    assert caught.value.phase == REPLY


@pytest.mark.parametrize(
    ("start", "hint"),
    [
        (anonymous(), "user:password@host"),
        (alice(), "neither user name and password"),
        (alice(require_auth=True), "without require_auth"),
    ],
)
def test_no_acceptable_method_has_a_hint(start, hint):
    with pytest.raises(errors.ProxyAuthenticationError) as caught:
        play(start(), b"\x05\xff")

    assert hint in caught.value.hint


@settings(deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_any_answer_ends_in_a_result_or_in_an_error_of_ours(data, with_login):
    """And what lies behind the bytes that made the result never changes it."""
    start = alice() if with_login else anonymous()
    try:
        result, left = play(start(), data)
    except errors.ProxyError:
        return
    taken = data[: len(data) - len(left)]

    assert play(start(), taken + APPLICATION) == (result, APPLICATION)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_reply_ends_in_a_result_or_in_an_error_of_ours(data):
    data = b"\x05\x00\x05\x00" + data
    try:
        result, left = play(anonymous()(), data)
    except errors.ProxyProtocolError:
        return
    taken = data[: len(data) - len(left)]

    assert play(anonymous()(), taken + APPLICATION) == (result, APPLICATION)


# The server's side


def sesame(username, password):
    return (username, password) == (b"alice", b"sesame")


def anybody(username, password):
    return True


@pytest.mark.parametrize(("_", "address", "target"), BOUND_ADDRESSES)
def test_a_request_is_read_with_any_address(_, address, target):
    data = GREETING + b"\x05\x01\x00" + address + APPLICATION
    for cuts in [(), range(1, len(data))]:
        said = []
        request, left = play(accept(), data, cuts, said)

        assert (request.host, request.port) == target
        assert (request.protocol, request.command) == ("SOCKS5", CONNECT)
        assert request.username is None
        assert (left, said) == (APPLICATION, [b"\x05\x00"])


@pytest.mark.parametrize(
    ("check", "login", "username"),
    [
        (sesame, LOGIN, "alice"),
        (anybody, b"\x01\x00\x00", ""),
        (anybody, b"\x01\x01\xff\x01\xff", "\ufffd"),
        (anybody, b"\x01\xff" + b"u" * 255 + b"\xff" + b"p" * 255, "u" * 255),
    ],
)
def test_a_login_is_read_and_checked(check, login, username):
    said = []
    request, left = play(accept(check), GREETING_WITH_LOGIN + login + REQUEST, said=said)

    assert (request.username, left) == (username, b"")
    assert said == [b"\x05\x02", b"\x01\x00"]


@pytest.mark.parametrize(
    ("check", "data", "said", "error"),
    [
        (None, GREETING_LOGIN_ONLY, [b"\x05\xff"], errors.ProxyProtocolError),
        (None, b"\x05\x00", [b"\x05\xff"], errors.ProxyProtocolError),
        (sesame, GREETING, [b"\x05\xff"], errors.ProxyProtocolError),
        (
            sesame,
            GREETING_LOGIN_ONLY + b"\x01\x05alice\x06Sesame",
            [b"\x05\x02", b"\x01\x01"],
            errors.ProxyAuthenticationError,
        ),
        (
            sesame,
            GREETING_LOGIN_ONLY + b"\x05\x05alice\x06sesame",
            [b"\x05\x02", b"\x01\x01"],
            errors.ProxyProtocolError,
        ),
        (
            None,
            GREETING + b"\x05\x01\x00\x02\x00\x00",
            [b"\x05\x00", b"\x05\x08\x00\x01\x00\x00\x00\x00\x00\x00"],
            errors.ProxyProtocolError,
        ),
        (None, GREETING + b"\x04\x01\x00\x03\x07", [b"\x05\x00"], errors.ProxyProtocolError),
    ],
    ids=["only login", "no method", "no login", "wrong", "not RFC 1929", "ATYP 2", "version 4"],
)
def test_a_client_that_is_refused_is_told_so_first(check, data, said, error):
    heard = []
    with pytest.raises(error):
        play(accept(check), data, said=heard)

    assert heard == said


@pytest.mark.parametrize(("_", "address", "bound"), BOUND_ADDRESSES[:2])
def test_a_reply_is_made_of_its_code_and_the_bound_address(_, address, bound):
    assert socks5.reply(0, *bound) == b"\x05\x00\x00" + address
    assert socks5.reply(0xF7, *bound) == b"\x05\xf7\x00" + pack_address(*bound)


def test_a_reply_has_no_bound_address_by_default():
    assert socks5.reply(1) == b"\x05\x01\x00\x01" + bytes(6)
