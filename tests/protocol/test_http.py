"""HTTP CONNECT, byte for byte."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from socksy import errors
from socksy.protocol import http
from socksy.protocol.server import accept
from socksy.protocol.steps import HTTP_ANSWER

from .wire import APPLICATION, Conversations, Row, play, rows

CONNECT, BIND, ASSOCIATE = 1, 2, 3

REQUEST = b"CONNECT example:80 HTTP/1.1\r\nHost: example:80\r\n\r\n"
# base64 of "alice:sesame"
REQUEST_WITH_LOGIN = (
    b"CONNECT example:80 HTTP/1.1\r\nHost: example:80\r\n"
    b"Proxy-Authorization: Basic YWxpY2U6c2VzYW1l\r\n\r\n"
)
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
LAST_INTERIM = b"HTTP/1.1 199 \r\n\r\n"
BOUND = ("0.0.0.0", 0)


def asking(host="example", port=80, **options):
    return lambda: http.handshake(CONNECT, host, port, **options)


def request_row(name, host, place, port=80):
    request = b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (place, place)
    return Row(name, asking(host, port), [request], [(ESTABLISHED, HTTP_ANSWER)], BOUND)


@rows(
    request_row("to a name", "example", b"example:80"),
    request_row("to an IPv4 address", "192.0.2.1", b"192.0.2.1:80"),
    request_row("to an IPv6 address", "2001:db8::1", b"[2001:db8::1]:80"),
    request_row("to an IPv4-mapped address", "::ffff:192.0.2.1", b"192.0.2.1:80"),
    request_row("highest port", "example", b"example:65535", 65535),
    Row(
        "with a login",
        asking(login=(b"alice", b"sesame")),
        [REQUEST_WITH_LOGIN],
        [(ESTABLISHED, HTTP_ANSWER)],
        BOUND,
    ),
    Row(
        "with a login that is no text",  # base64 of the 259 bytes does not break the line
        asking(login=(b"\r\n\xff", b"p" * 255)),
        [REQUEST_WITH_LOGIN.replace(b"YWxpY2U6c2VzYW1l", b"DQr/OnBw" + b"cHBw" * 84 + b"cA==")],
        [(ESTABLISHED, HTTP_ANSWER)],
        BOUND,
    ),
)
class TestRequests(Conversations):
    pass


@pytest.mark.parametrize("command", [BIND, ASSOCIATE, 0xF0])
def test_anything_but_connect_is_refused_before_anything_is_sent(command):
    with pytest.raises(errors.ProxyUnsupportedError) as caught:
        http.handshake(command, "example", 80)

    assert "socks5h://" in caught.value.hint


def answer_row(name, answer, result=BOUND, judged=None):
    return Row(name, asking(), [REQUEST], [(answer, HTTP_ANSWER)], result, judged)


@rows(
    answer_row("HTTP/1.1", ESTABLISHED),
    answer_row("HTTP/1.0", b"HTTP/1.0 200 OK\r\n\r\n"),
    answer_row("no reason", b"HTTP/1.1 200\r\n\r\n"),
    answer_row("another success", b"HTTP/1.1 299 Sure\r\n\r\n"),
    answer_row("with fields", b"HTTP/1.1 200 OK\r\nVia: 1.1 squid\r\nA:\r\n\r\n"),
    answer_row("with bare line feeds", b"HTTP/1.1 200 OK\nVia: 1.1 squid\n\n"),
    answer_row("with mixed ends of line", b"HTTP/1.1 200 OK\r\nVia: 1.1 squid\n\r\n"),
    answer_row("after an interim answer", b"HTTP/1.1 100 Continue\r\n\r\n" + ESTABLISHED)._replace(
        hears=[(b"HTTP/1.1 100 Continue\r\n\r\n", HTTP_ANSWER), (ESTABLISHED, HTTP_ANSWER)]
    ),
    answer_row("after two of them", EARLY_HINTS + LAST_INTERIM + ESTABLISHED)._replace(
        hears=[(answer, HTTP_ANSWER) for answer in (EARLY_HINTS, LAST_INTERIM, ESTABLISHED)]
    ),
)
class TestSuccesses(Conversations):
    pass


def refused(name, head, error):
    """A refusal is known when its status line is there."""
    return answer_row(name, head, error, judged=head.index(b"\n") + 1)


@pytest.mark.trap(3, 5)
@rows(
    refused("403", b"HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n", errors.NotAllowedError),
    refused("404", b"HTTP/1.1 404 Not Found\r\n\r\n", errors.HostUnreachableError),
    refused("405", b"HTTP/1.1 405 \r\n\r\n", errors.CommandNotSupportedError),
    refused("407", b"HTTP/1.1 407 Login\r\n\r\n", errors.ProxyAuthenticationError),
    refused("418", b"HTTP/1.1 418 I'm a teapot\r\n\r\n", errors.ProxyReplyError),
    refused("500", b"HTTP/1.1 500 \r\n\r\n", errors.ProxyReplyError),
    refused("501", b"HTTP/1.0 501 Tor\n\n<html>", errors.CommandNotSupportedError),
    refused("502", b"HTTP/1.1 502\r\n\r\n", errors.HostUnreachableError),
    refused("503", b"HTTP/1.1 503\r\n\r\n", errors.HostUnreachableError),
    refused("504", b"HTTP/1.1 504\r\n\r\n", errors.ProxyTTLExpiredError),
    refused("a redirection", b"HTTP/1.1 302 Found\r\nLocation: /\r\n", errors.ProxyReplyError),
    refused("no status", b"HTTP/1.1\r\n\r\n", errors.ProxyProtocolError),
    refused("a short status", b"HTTP/1.1 20 OK\r\n\r\n", errors.ProxyProtocolError),
    refused("a long status", b"HTTP/1.1 2000 OK\r\n\r\n", errors.ProxyProtocolError),
    refused("a wordy status", b"HTTP/1.1 abc OK\r\n\r\n", errors.ProxyProtocolError),
    refused("a status of 0", b"HTTP/1.1 000 OK\r\n\r\n", errors.ProxyProtocolError),
    answer_row("SOCKS5", b"\x05\xff", errors.ProxyProtocolError, judged=1),
    answer_row("SSH", b"SSH-2.0-OpenSSH_9.2\r\n", errors.ProxyProtocolError, judged=1),
    answer_row("HTTP/2", b"HTTP/2 200\r\n\r\n", errors.ProxyProtocolError, judged=6),
    answer_row("a greeting", b"Hello 200\r\n\r\n", errors.ProxyProtocolError, judged=2),
    answer_row("ICY", b"ICY 200 OK\r\n\r\n", errors.ProxyProtocolError, judged=1),
)
class TestRefusals(Conversations):
    pass


@pytest.mark.parametrize(
    ("login", "verdict", "hint"),
    [(None, "wants a login", "user:password@host"), ((b"a", b"b"), "refused the login", None)],
)
def test_a_refused_login_says_whether_there_was_one(login, verdict, hint):
    with pytest.raises(errors.ProxyAuthenticationError, match=verdict) as caught:
        play(asking(login=login)(), b"HTTP/1.1 407 \r\n")

    assert (hint or "") in (caught.value.hint or "")


@pytest.mark.trap(11)
def test_a_socks_server_is_recognized():
    with pytest.raises(errors.ProxyProtocolError) as caught:
        play(asking()(), b"\x05\xff")

    assert "socks5h://" in caught.value.hint


def test_an_answer_that_only_begins_like_http_is_not_told_to_use_http():
    with pytest.raises(errors.ProxyProtocolError, match="not HTTP/1") as caught:
        play(asking()(), b"HELO\r\n")

    assert caught.value.hint is None


def test_a_head_without_end_is_given_up():
    with pytest.raises(errors.ProxyProtocolError, match="has no end"):
        play(asking()(), b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 99999)


def test_interim_answers_without_end_are_given_up():
    """Together they may be as long as one head: nobody looks at a clock while more is there."""
    with pytest.raises(errors.ProxyProtocolError, match="interim answers"):
        play(asking()(), EARLY_HINTS * 9999)


@settings(deadline=None)
@given(
    st.binary(max_size=60) | st.text("HTP/1. 205\r\n", max_size=60).map(str.encode),
    st.sampled_from([b"", b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r", b"HTTP/1.1 200 OK\r\n"]),
)
def test_any_answer_ends_in_a_result_or_in_an_error_of_ours(data, start):
    """And however it is split, the head that was taken is the same."""
    data = start + data
    try:
        result, left = play(asking()(), data)
    except errors.ProxyError as error:
        with pytest.raises(type(error)):
            play(asking()(), data, range(len(data)))
        return
    taken = data[: len(data) - len(left)]

    assert taken.endswith((b"\n\n", b"\n\r\n"))
    assert play(asking()(), taken + APPLICATION, range(len(data))) == (result, APPLICATION)


# The server's side


def sesame(username, password):
    return (username, password) == (b"alice", b"sesame")


@pytest.mark.parametrize(
    ("check", "data", "target", "username"),
    [
        (None, REQUEST, ("example", 80), None),
        (None, REQUEST_WITH_LOGIN, ("example", 80), None),
        (sesame, REQUEST_WITH_LOGIN, ("example", 80), "alice"),
        (sesame, REQUEST_WITH_LOGIN.replace(b": Basic ", b":basic   "), ("example", 80), "alice"),
        (sesame, REQUEST_WITH_LOGIN.replace(b"Proxy-A", b"proxy-a"), ("example", 80), "alice"),
        (sesame, REQUEST_WITH_LOGIN.replace(b"Proxy-A", b"PROXY-a"), ("example", 80), "alice"),
        (sesame, REQUEST_WITH_LOGIN.replace(b"\r\n", b"\n"), ("example", 80), "alice"),
        (None, b"CONNECT [2001:db8::1]:443 HTTP/1.0\r\n\r\n", ("2001:db8::1", 443), None),
    ],
)
def test_a_request_is_read_up_to_its_last_byte(check, data, target, username):
    for cuts in [(), range(1, len(data))]:
        request, left = play(accept(check), data + APPLICATION, cuts)

        assert (request.host, request.port) == target
        assert (request.protocol, request.command) == ("HTTP", CONNECT)
        assert (request.username, left) == (username, APPLICATION)


def test_any_user_may_be_let_in():
    data = REQUEST_WITH_LOGIN.replace(b"YWxpY2U6c2VzYW1l", b"/w==")  # b"\xff", no colon

    assert play(accept(lambda username, password: True), data).result.username == "\ufffd"


@pytest.mark.parametrize(
    ("check", "data", "status"),
    [
        (None, b"CONNECT example:80\r\n\r\n", b"400"),
        (None, b"CONNECT example:80 HTTP/2\r\n\r\n", b"400"),
        (None, b"GET http://example/ HTTP/1.1\r\n\r\n", b"501"),
        (None, b"CONNECT example HTTP/1.1\r\n\r\n", b"400"),
        (None, b"CONNECT :80 HTTP/1.1\r\n\r\n", b"400"),
        (None, b"CONNECT example: HTTP/1.1\r\n\r\n", b"400"),
        (None, b"CONNECT example:0 HTTP/1.1\r\n\r\n", b"400"),
        (None, b"CONNECT example:65536 HTTP/1.1\r\n\r\n", b"400"),
        (None, b"CONNECT example:%b HTTP/1.1\r\n\r\n" % (b"8" * 9999), b"400"),
        (None, b"CONNECT example:\xb2 HTTP/1.1\r\n\r\n", b"400"),
        (sesame, REQUEST, b"407"),
        (sesame, REQUEST_WITH_LOGIN.replace(b"Basic", b"Digest"), b"407"),
        (sesame, REQUEST_WITH_LOGIN.replace(b"YWxp", b"ywxp"), b"407"),
        (sesame, REQUEST_WITH_LOGIN.replace(b"YWxp", b"Y"), b"407"),
        (sesame, REQUEST_WITH_LOGIN.replace(b"YWxp", b"\xe4\xe4"), b"407"),
        (sesame, REQUEST_WITH_LOGIN.replace(b"\r\nProxy", b"\x85Proxy"), b"407"),
    ],
)
def test_a_client_that_is_refused_is_told_so_first(check, data, status):
    said = []
    with pytest.raises((errors.ProxyProtocolError, errors.ProxyAuthenticationError)) as caught:
        play(accept(check), data, said=said)

    assert isinstance(caught.value, errors.ProxyAuthenticationError) == (status == b"407")
    assert [message[:13] for message in said] == [b"HTTP/1.1 " + status + b" "]


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        (200, ESTABLISHED),
        (
            407,
            b"HTTP/1.1 407 Proxy Authentication Required\r\n"
            b'Proxy-Authenticate: Basic realm="socksy"\r\n'
            b"Content-Length: 0\r\nConnection: close\r\n\r\n",
        ),
        (499, b"HTTP/1.1 499 Refused\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
    ],
)
def test_an_answer_has_no_body(code, answer):
    assert http.reply(code) == answer
