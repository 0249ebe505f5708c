"""One proxy after the other: who is asked for what, and who is to blame."""

import base64
import pickle
import traceback

import pytest

from socksy import errors
from socksy.protocol import (
    bind_peer,
    handshake,
    name_the_leg,
    predictor,
    tunnel,
)
from socksy.protocol.codes import Command
from socksy.protocol.steps import (
    HTTP_ANSWER,
    METHOD_CHOICE,
    NOWHERE,
    REPLY,
    SECOND_REPLY,
    Pump,
    timed_out,
)
from socksy.proxy import Proxy

from .wire import Conversations, Row, play, rows

TARGET = ("example", 80)
BOUND = ("192.0.2.1", 1080)

NO_LOGIN_NEEDED = (b"\x05\x00", METHOD_CHOICE)
SOCKS5_SUCCESS = (b"\x05\x00\x00\x01\xc0\x00\x02\x01\x04\x38", REPLY)
SOCKS4_SUCCESS = (b"\x00\x5a\x04\x38\xc0\x00\x02\x01", REPLY)
HTTP_SUCCESS = (b"HTTP/1.1 200 OK\r\n\r\n", HTTP_ANSWER)


def legs(*urls, target=TARGET):
    """A chain of proxies, each asked for the next, the last one for the target."""
    chain = [Proxy.from_url(url) for url in urls]
    places = [(proxy.host, proxy.port) for proxy in chain[1:]] + [target]
    return tuple((proxy, *place) for proxy, place in zip(chain, places, strict=True))


def through(*urls, target=TARGET, command=Command.CONNECT):
    return lambda: tunnel(legs(*urls, target=target), command)


@rows(
    Row(
        "socks5h",
        through("socks5h://a"),
        [b"\x05\x01\x00", b"\x05\x01\x00\x03\x07example\x00\x50"],
        [NO_LOGIN_NEEDED, SOCKS5_SUCCESS],
        BOUND,
    ),
    Row(
        "socks5 with an address, looked up before",
        through("socks5://a", target=("192.0.2.9", 80)),
        [b"\x05\x01\x00", b"\x05\x01\x00\x01\xc0\x00\x02\x09\x00\x50"],
        [NO_LOGIN_NEEDED, SOCKS5_SUCCESS],
        BOUND,
    ),
    Row(
        "socks5h with a login",
        through("socks5h://alice:sesame@a"),
        [
            b"\x05\x02\x00\x02",
            b"\x01\x05alice\x06sesame",
            b"\x05\x01\x00\x03\x07example\x00\x50",
        ],
        [(b"\x05\x02", METHOD_CHOICE), (b"\x01\x00", "the login answer"), SOCKS5_SUCCESS],
        BOUND,
    ),
    Row(
        "socks5h with a user name only",
        through("socks5h://%FF@a"),
        [b"\x05\x02\x00\x02", b"\x01\x01\xff\x00", b"\x05\x01\x00\x03\x07example\x00\x50"],
        [(b"\x05\x02", METHOD_CHOICE), (b"\x01\x00", "the login answer"), SOCKS5_SUCCESS],
        BOUND,
    ),
    Row(
        "socks4a",
        through("socks4a://alice@a"),
        [b"\x04\x01\x00\x50\x00\x00\x00\x01alice\x00example\x00"],
        [SOCKS4_SUCCESS],
        BOUND,
    ),
    Row(
        "socks4 with an address, looked up before",
        through("socks4://a", target=("192.0.2.9", 80)),
        [b"\x04\x01\x00\x50\xc0\x00\x02\x09\x00"],
        [SOCKS4_SUCCESS],
        BOUND,
    ),
    Row(
        "http",
        through("http://a"),
        [b"CONNECT example:80 HTTP/1.1\r\nHost: example:80\r\n\r\n"],
        [HTTP_SUCCESS],
        ("0.0.0.0", 0),
    ),
    Row(
        "BIND at the end of a chain",
        through("socks4a://a", "socks5h://b:2", command=Command.BIND),
        [
            b"\x04\x01\x00\x02\x00\x00\x00\x01\x00b\x00",
            b"\x05\x01\x00",
            b"\x05\x02\x00\x03\x07example\x00\x50",
        ],
        [SOCKS4_SUCCESS, NO_LOGIN_NEEDED, SOCKS5_SUCCESS],
        BOUND,
    ),
    Row(
        "three protocols",
        through("http://a", "socks5h://b:2", "socks4a://192.0.2.3:3"),
        [
            b"CONNECT b:2 HTTP/1.1\r\nHost: b:2\r\n\r\n",
            b"\x05\x01\x00",
            b"\x05\x01\x00\x01\xc0\x00\x02\x03\x00\x03",
            b"\x04\x01\x00\x50\x00\x00\x00\x01\x00example\x00",
        ],
        [HTTP_SUCCESS, NO_LOGIN_NEEDED, SOCKS5_SUCCESS, SOCKS4_SUCCESS],
        BOUND,
    ),
    Row(
        "the next hop is refused",
        through("socks5h://a", "socks5h://b:2"),
        [b"\x05\x01\x00", b"\x05\x01\x00\x03\x01b\x00\x02"],
        [NO_LOGIN_NEEDED, (b"\x05\x05\x00\x01", REPLY)],
        errors.ProxyConnectionError,
        judged=2,
    ),
    Row(
        "the target is refused at the end of a chain",
        through("socks4a://a", "socks5h://b:2"),
        [
            b"\x04\x01\x00\x02\x00\x00\x00\x01\x00b\x00",
            b"\x05\x01\x00",
            b"\x05\x01\x00\x03\x07example\x00\x50",
        ],
        [SOCKS4_SUCCESS, NO_LOGIN_NEEDED, (b"\x05\x05\x00\x01", REPLY)],
        errors.TargetRefusedError,
        judged=2,
    ),
)
class TestTunnels(Conversations):
    pass


def failure(handshake, data):
    with pytest.raises(errors.ProxyError) as caught:
        play(handshake, data)
    return caught.value


def test_an_error_names_the_proxy_and_what_was_asked_of_it():
    error = failure(through("socks5h://a")(), b"\x05\xff")

    assert (error.proxy, error.target) == ("socks5h://a:1080", TARGET)
    assert (error.hop, error.hops) == (None, None)
    assert "(proxy socks5h://a:1080, target example:80)" in str(error)


def test_an_error_names_the_hop_of_a_chain():
    error = failure(through("socks4a://a", "socks5h://b:2")(), SOCKS4_SUCCESS[0] + b"\x05\xff")

    assert (error.proxy, error.target) == ("socks5h://b:2", TARGET)
    assert (error.hop, error.hops) == (2, 2)


def test_an_end_of_file_names_the_hop_that_was_asked():
    error = failure(through("socks5h://a", "socks5h://b:2")(), b"\x05\x00")

    assert isinstance(error, errors.ProxyProtocolError)
    assert (error.proxy, error.target) == ("socks5h://a:1080", ("b", 2))
    assert (error.hop, error.hops) == (1, 2)


def test_a_deadline_names_the_hop_too():
    pump = Pump(through("socks4a://a", "socks5h://b:2")())
    with pytest.raises(errors.ProxyTimeoutError) as caught:
        pump.fail(timed_out(pump.awaiting))

    assert (caught.value.proxy, caught.value.hop) == ("socks4a://a:1080", 1)


def test_a_proxy_that_is_refused_to_the_one_before_cannot_be_reached():
    """It is not the target that was refused: what catches that must not see this."""
    error = failure(through("socks5h://a", "http://b:2", "socks5h://c:3")(), b"\x05\x00\x05\x05")

    assert isinstance(error, errors.ProxyConnectionError)
    assert not isinstance(error, errors.ProxyReplyError)
    assert (error.proxy, error.hop, error.hops) == ("http://b:2", 2, 3)
    assert error.target == ("c", 3)
    assert (error.errno, error.phase) == (error.__cause__.errno, REPLY)
    assert "connection refused" in error.strerror
    assert isinstance(error.__cause__, errors.TargetRefusedError)
    assert (error.__cause__.proxy, error.__cause__.hop) == ("socks5h://a:1080", 1)
    assert error.__cause__.target == ("b", 2)


@pytest.mark.parametrize(
    ("urls", "target", "command", "hop"),
    [
        (["socks4a://a"], ("::1", 80), Command.CONNECT, None),
        (["http://a"], TARGET, Command.BIND, None),
        (["socks5h://a", "socks4a://b"], TARGET, Command.UDP_ASSOCIATE, 2),
        (["socks4a://a", "socks5h://[::1]"], TARGET, Command.CONNECT, 1),
    ],
)
def test_what_a_proxy_cannot_do_is_raised_before_anything_is_sent(urls, target, command, hop):
    with pytest.raises(errors.ProxyUnsupportedError) as caught:
        tunnel(legs(*urls, target=target), command)

    number = (hop or 1) - 1
    assert caught.value.proxy == str(Proxy.from_url(urls[number]))
    assert caught.value.target == legs(*urls, target=target)[number][1:]
    assert caught.value.hop == hop


@pytest.mark.parametrize(
    ("url", "reply"),
    [
        ("socks4://a", SOCKS4_SUCCESS[0]),
        ("socks4a://a", SOCKS4_SUCCESS[0]),
        ("socks5://a", SOCKS5_SUCCESS[0]),
        ("socks5h://a", SOCKS5_SUCCESS[0]),
    ],
)
class TestBindPeer:
    def test_is_who_has_connected(self, url, reply):
        said = []

        assert play(bind_peer(legs(url)), reply, said=said) == (BOUND, b"")
        assert said == []

    def test_comes_from_the_last_proxy_of_a_chain(self, url, reply):
        chain = legs("http://z", url)

        assert play(bind_peer(chain), reply).result == BOUND

        error = failure(bind_peer(chain), reply[:3])
        assert (error.proxy, error.hop, error.hops) == (f"{url}:1080", 2, 2)
        assert error.target == TARGET
        assert error.phase == SECOND_REPLY

    def test_may_come_in_one_packet_with_the_first_reply(self, url, reply):
        chain = legs(url, target=("192.0.2.9", 80))
        greeting = b"\x05\x00" if "5" in url else b""
        bound, left = play(tunnel(chain, Command.BIND), greeting + reply + reply)

        assert play(bind_peer(chain), left) == (bound, b"")


def test_a_leg_can_be_named_from_outside():
    """For what fails before the first byte: the connection to the proxy."""
    error = errors.ProxyConnectionError(111, "refused")
    name_the_leg(error, legs("socks5h://a", "socks5h://b"), 0)

    assert (error.proxy, error.target) == ("socks5h://a:1080", ("b", 1080))
    assert (error.hop, error.hops) == (1, 2)


# Nothing that goes wrong shows a credential

SECRETS = ["distinctive-user", "distinctive-password"]
SECRETS.append(base64.b64encode(":".join(SECRETS).encode()).decode())
LOGIN = "distinctive-user:distinctive-password@"


def everything_said_by(error):
    """What an error shows, and what it holds: those it came from too."""
    seen = []
    while error is not None:
        seen += [repr(error), str(error), repr(error.args), repr(vars(error))]
        seen.append(repr(pickle.dumps(error)))
        error = error.__cause__ or error.__context__
    return "\n".join(seen)


@pytest.mark.parametrize(
    ("urls", "answer"),
    [
        ([f"socks5h://{LOGIN}a"], b"\x05\xff"),
        ([f"socks5h://{LOGIN}a"], b"\x05\x01"),
        ([f"socks5h://{LOGIN}a"], b"\x05"),
        ([f"socks5h://{LOGIN}a"], b"\x05\x02\x01\x01"),
        ([f"socks5h://{LOGIN}a"], b"\x05\x02\x01"),
        ([f"socks5h://{LOGIN}a"], b"\x05\x02\x48\x54"),
        ([f"socks5h://{LOGIN}a"], b"\x05\x02\x01\x00\x05\x05"),
        ([f"socks5h://{LOGIN}a"], b"\x05\x02\x01\x00\x05\x00\x00\x00\x00\x00\x00"),
        ([f"socks5h://{LOGIN}a", "http://b"], b"\x05\x02\x01\x00\x05\x05"),
        ([f"http://{LOGIN}a"], b"HTTP/1.1 407 \r\n"),
        ([f"http://{LOGIN}a"], b"HTTP/1.1 403 \r\n"),
        ([f"http://{LOGIN}a"], b""),
        ([f"http://{LOGIN}a", f"socks5h://{LOGIN}b"], b"HTTP/1.1 502 \r\n"),
        (["socks4a://distinctive-user@a"], b"\x00\x5d"),
        (["socks4a://distinctive-user@a"], b""),
    ],
)
def test_no_error_shows_or_holds_a_credential(urls, answer):
    said = everything_said_by(failure(through(*urls)(), answer))

    assert "***:***@a" in said
    assert [secret for secret in SECRETS if secret in said] == []


@pytest.mark.parametrize(
    ("url", "answer"),
    [
        (f"socks5h://{LOGIN}a", b"\x05\xff"),
        (f"socks5h://{LOGIN}a", b"\x05\x02\x01\x01"),
        (f"http://{LOGIN}a", b"HTTP/1.1 403 \r\n"),
        ("socks4a://distinctive-user@a", b"\x00\x5d"),
    ],
)
def test_no_variable_on_the_way_to_an_error_shows_a_credential(url, answer):
    """Error trackers print those of each frame. (The URL itself is the application's.)"""
    error = failure(through(url)(), answer)
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    said = str([frame.locals for frame in shown.stack if "/socksy/" in frame.filename])

    assert "<secret bytes>" in said
    assert [secret for secret in SECRETS if secret in said] == []


def test_no_error_raised_before_shows_or_holds_a_credential():
    with pytest.raises(errors.ProxyUnsupportedError) as caught:
        through(f"http://{LOGIN}a", command=Command.BIND)()

    said = everything_said_by(caught.value)
    assert "***:***@a" in said
    assert [secret for secret in SECRETS if secret in said] == []


# -- how it mostly goes


def predict(leg):
    proxy, host, port = leg
    return predictor(proxy)(host, port)


def conversation(leg, answers):
    """What a handshake says, how much it wants to hear, and its result, given these answers."""
    talk = handshake(leg)
    step = next(talk)
    said = []
    for answer in answers:
        said.append((step.send, step.need))
        try:
            step = talk.send(answer)
        except StopIteration as stop:
            return said, stop.value
    raise AssertionError(f"it waits for {step.awaiting}")


@pytest.mark.parametrize("target", [TARGET, ("192.0.2.9", 80), ("2001:db8::1", 65535), ("9", 1)])
@pytest.mark.parametrize(
    "url",
    [
        "socks5h://a",
        "socks5h://alice:sesame@a",
        "socks4a://a",
        "socks4a://alice@a",
    ],
)
@pytest.mark.parametrize("require_auth", [False, True])
def test_a_prediction_is_what_the_handshake_says(url, target, require_auth):
    """Else there would be two texts of one protocol."""
    proxy = Proxy.from_url(url)
    if require_auth and proxy.remote_dns and proxy.username and "socks5" in url:
        proxy = proxy.replace(require_auth=True)
    leg = (proxy, *target)
    if "socks4" in url and ":" in target[0]:
        with pytest.raises(errors.ProxyUnsupportedError):
            predict(leg)
        return
    exchanges, conclude = predict(leg)

    said, result = conversation(leg, [usual for _, _, usual, _ in exchanges])
    assert said == [(message, length) for message, length, _, _ in exchanges]
    assert result == NOWHERE

    others = [begin + b"\x17" * (length - len(begin)) for _, length, _, begin in exchanges]
    said, result = conversation(leg, others)
    assert said == [(message, length) for message, length, _, _ in exchanges]
    assert result == conclude(others) == ("23.23.23.23", 0x1717)


@pytest.mark.parametrize("url", ["http://a", "http://alice:sesame@a"])
@pytest.mark.parametrize("target", [TARGET, ("192.0.2.9", 80), ("2001:db8::1", 65535)])
def test_a_head_is_predicted_as_the_handshake_takes_it(url, target):
    """What a driver makes of the prediction: tests/sockets/test_straight.py."""
    leg = (Proxy.from_url(url), *target)
    ((message, length, _, begin),), _ = predict(leg)
    head = b"HTTP/1.1 200 OK\r\nx: y\r\n\r\n"

    talk = handshake(leg)
    step = next(talk)
    assert (step.send, step.peek, length) == (message, True, 0)
    assert head.startswith(begin)
    assert talk.send(head + b"220 hello").need == len(head)


@pytest.mark.parametrize("url", ["socks5h://alice:sesame@a", "http://alice:sesame@a"])
def test_a_prediction_shows_no_login(url):
    """A traceback with variables may print it."""
    assert "sesame" not in repr(predict((Proxy.from_url(url), *TARGET)))
    assert base64.b64encode(b"alice:sesame").decode() not in repr(
        predict((Proxy.from_url(url), *TARGET))
    )
