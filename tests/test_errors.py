"""The errors: whose children they are, what they say, and what a reply means."""

import copy
import errno
import pickle

import pytest

from socksy import errors
from socksy.errors import reply_error, reply_name

# What existing code already catches: (class, builtin parent)
PARENTS = [
    (errors.ProxyError, OSError),
    (errors.ProxyConnectionError, ConnectionError),
    (errors.ProxyTimeoutError, TimeoutError),
    (errors.ProxyAuthenticationError, PermissionError),
    (errors.ProxyProtocolError, OSError),
    (errors.ProxyUnsupportedError, OSError),
    (errors.DirectTrafficError, PermissionError),
    (errors.ProxyReplyError, OSError),
    (errors.TargetRefusedError, ConnectionRefusedError),
    (errors.NotAllowedError, PermissionError),
    (errors.HostUnreachableError, OSError),
    (errors.NetworkUnreachableError, OSError),
    (errors.ProxyTTLExpiredError, TimeoutError),
    (errors.CommandNotSupportedError, OSError),
    (errors.AddressTypeNotSupportedError, OSError),
    (errors.InvalidArgumentError, ValueError),
    (errors.InvalidProxyError, errors.InvalidArgumentError),
    (errors.InvalidTargetError, errors.InvalidArgumentError),
    (errors.InvalidPortError, errors.InvalidTargetError),
    (errors.InvalidPortError, OverflowError),
]
PROXY_ERRORS = [kind for kind, _ in PARENTS if issubclass(kind, OSError)]


@pytest.mark.parametrize(("kind", "parent"), PARENTS)
def test_is_caught_by_what_existing_code_catches(kind, parent):
    assert issubclass(kind, parent)
    assert issubclass(kind, errors.ProxyError) == issubclass(kind, OSError)


def test_every_error_is_public_and_in_the_table_above():
    kinds = {kind.__name__ for kind, _ in PARENTS}

    assert kinds == {name for name in errors.__all__ if name.endswith("Error")}
    assert kinds == {name for name, it in vars(errors).items() if isinstance(it, type)}


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        (errors.ProxyTimeoutError, errno.ETIMEDOUT),
        (errors.ProxyAuthenticationError, errno.EACCES),
        (errors.ProxyProtocolError, errno.EPROTO),
        (errors.ProxyUnsupportedError, errno.EOPNOTSUPP),
    ],
)
def test_has_an_errno_without_being_given_one(kind, number):
    error = kind(phase="the reply", hint="Try again")

    assert error.errno == number
    assert error.strerror
    assert (error.phase, error.hint) == ("the reply", "Try again")


def dressed(kind):
    error = kind(errno.EIO, "went wrong", phase="the reply", hint="Try again")
    error.proxy, error.target = "socks5h://127.0.0.1:1080", ("example.com", 80)
    error.hop, error.hops = 2, 3
    return error


class TestText:
    def test_begins_as_that_of_every_os_error(self):
        error = errors.ProxyError(errno.EIO, "went wrong")

        assert str(error) == f"[Errno {errno.EIO}] went wrong" == str(OSError(*error.args))

    def test_tells_all_that_is_known(self):
        assert str(dressed(errors.ProxyError)) == (
            f"[Errno {errno.EIO}] went wrong, while waiting for the reply"
            " (proxy socks5h://127.0.0.1:1080, hop 2 of 3, target example.com:80). Try again"
        )

    def test_puts_brackets_around_ipv6(self):
        error = errors.ProxyError(errno.EIO, "went wrong")
        error.target = "2001:db8::1", 80

        assert str(error).endswith("(target [2001:db8::1]:80)")


@pytest.mark.parametrize("kind", PROXY_ERRORS)
@pytest.mark.parametrize("copied", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_survives_pickling(kind, copied):
    error = dressed(kind)
    twin = copied(error)

    assert type(twin) is kind
    assert (str(twin), twin.errno, twin.args) == (str(error), error.errno, error.args)
    assert vars(twin) == vars(error)


@pytest.mark.parametrize("kind", [kind for kind, _ in PARENTS if issubclass(kind, ValueError)])
def test_a_wrong_argument_survives_pickling(kind):
    assert pickle.loads(pickle.dumps(kind("wrong"))).args == ("wrong",)


# What each reply means: (protocol, code, class, errno, name)
REPLIES = [
    ("SOCKS5", 0x01, errors.ProxyReplyError, errno.EIO, "general SOCKS server failure"),
    ("SOCKS5", 0x02, errors.NotAllowedError, errno.EACCES, "connection not allowed by ruleset"),
    ("SOCKS5", 0x03, errors.NetworkUnreachableError, errno.ENETUNREACH, "network unreachable"),
    ("SOCKS5", 0x04, errors.HostUnreachableError, errno.EHOSTUNREACH, "host unreachable"),
    ("SOCKS5", 0x05, errors.TargetRefusedError, errno.ECONNREFUSED, "connection refused"),
    ("SOCKS5", 0x06, errors.ProxyTTLExpiredError, errno.ETIMEDOUT, "TTL expired"),  # trap 10
    ("SOCKS5", 0x07, errors.CommandNotSupportedError, errno.EOPNOTSUPP, "command not supported"),
    ("SOCKS5", 0x08, errors.AddressTypeNotSupportedError, errno.EAFNOSUPPORT, "address type"),
    ("SOCKS5", 0xF0, errors.HostUnreachableError, errno.EHOSTUNREACH, "descriptor not found"),
    ("SOCKS5", 0xF1, errors.HostUnreachableError, errno.EHOSTUNREACH, "descriptor invalid"),
    ("SOCKS5", 0xF2, errors.HostUnreachableError, errno.EHOSTUNREACH, "introduction failed"),
    ("SOCKS5", 0xF3, errors.HostUnreachableError, errno.EHOSTUNREACH, "rendezvous failed"),
    ("SOCKS5", 0xF4, errors.NotAllowedError, errno.EACCES, "wants client authorization"),
    ("SOCKS5", 0xF5, errors.NotAllowedError, errno.EACCES, "refuses this client authorization"),
    ("SOCKS5", 0xF6, errors.ProxyReplyError, errno.EINVAL, "onion address invalid"),
    ("SOCKS5", 0xF7, errors.ProxyTTLExpiredError, errno.ETIMEDOUT, "introduction timed out"),
    ("SOCKS4", 0x5B, errors.TargetRefusedError, errno.ECONNREFUSED, "rejected or failed"),
    ("SOCKS4", 0x5C, errors.NotAllowedError, errno.EACCES, "cannot reach identd"),
    ("SOCKS4", 0x5D, errors.NotAllowedError, errno.EACCES, "another user id"),
    ("HTTP", 403, errors.NotAllowedError, errno.EACCES, "forbidden"),
    ("HTTP", 404, errors.HostUnreachableError, errno.EHOSTUNREACH, "not found"),
    ("HTTP", 405, errors.CommandNotSupportedError, errno.EOPNOTSUPP, "method not allowed"),
    ("HTTP", 500, errors.ProxyReplyError, errno.EIO, "internal server error"),
    ("HTTP", 501, errors.CommandNotSupportedError, errno.EOPNOTSUPP, "not implemented"),
    ("HTTP", 502, errors.HostUnreachableError, errno.EHOSTUNREACH, "bad gateway"),
    ("HTTP", 503, errors.HostUnreachableError, errno.EHOSTUNREACH, "service unavailable"),
    ("HTTP", 504, errors.ProxyTTLExpiredError, errno.ETIMEDOUT, "gateway timeout"),
]


@pytest.mark.trap(10)
@pytest.mark.parametrize(("protocol", "code", "kind", "number", "name"), REPLIES)
def test_a_reply_has_its_class_errno_and_name(protocol, code, kind, number, name):
    error = reply_error(protocol, code)

    assert type(error) is kind
    assert (error.errno, error.code, error.protocol) == (number, code, protocol)
    assert name in error.reply == reply_name(protocol, code)
    assert error.phase == "the reply"


@pytest.mark.parametrize(
    ("protocol", "code", "text"),
    [
        ("SOCKS5", 5, "connection refused (SOCKS5 reply 05)"),
        ("SOCKS4", 0x5B, "request rejected or failed (SOCKS4 reply 5b)"),
        ("HTTP", 502, "bad gateway (HTTP reply 502)"),
    ],
)
def test_the_text_of_a_reply_has_its_number_as_the_standards_write_it(protocol, code, text):
    assert reply_error(protocol, code).strerror == text


@pytest.mark.parametrize(
    ("protocol", "code", "name"),
    [
        ("SOCKS5", 0x09, "unknown reply 09"),
        ("SOCKS5", 0xFF, "unknown reply ff"),
        ("SOCKS4", 0x00, "unknown reply 00"),
        ("HTTP", 418, "unknown reply 418"),
    ],
)
def test_an_unknown_reply_keeps_its_number(protocol, code, name):
    error = reply_error(protocol, code, "the second BIND reply")

    assert type(error) is errors.ProxyReplyError
    assert (error.code, error.reply, error.errno) == (code, name, errno.EIO)
    assert (error.phase, error.hint) == ("the second BIND reply", None)


def test_replies_survive_pickling_with_their_code():
    twin = pickle.loads(pickle.dumps(reply_error("SOCKS5", 5)))

    assert (twin.code, twin.reply, twin.protocol) == (5, "connection refused", "SOCKS5")
