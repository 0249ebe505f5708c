"""TLS over a proxied socket, as `ssl.SSLContext.wrap_socket` makes it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable

import pytest

import socksy

from .talk import fetch
from .targets import Targets

Url = Callable[[str, str], str]

WAYS = pytest.mark.parametrize(
    ("scheme", "name"),
    [
        ("socks5h", "danted"),
        ("socks4a", "ssh -D"),
        ("socks5h", "ssh -D on a Unix socket"),
        ("socks5", "microsocks with login"),
        ("socks5h", "v2ray"),
    ],
)


@WAYS
def test_wrapped_when_connected(url: Url, targets: Targets, here: str, scheme: str, name: str):
    address = here, targets.https
    sock = socksy.create_connection(address, timeout=10, proxy=url(scheme, name))
    with targets.trusting.wrap_socket(sock, server_hostname=here) as tls:
        assert tls.version() == "TLSv1.3"
        assert fetch(tls).startswith("socksy target at ")


@WAYS
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_wrapped_before_it_connects(
    url: Url, targets: Targets, here: str, scheme: str, name: str, family: int
):
    """Then it is the SSLSocket whose connect() is called, and that must go through the proxy."""
    sock = socksy.SocksSocket(family, proxy=url(scheme, name))
    with targets.trusting.wrap_socket(sock, server_hostname=here) as tls:
        tls.settimeout(10)
        tls.connect((here, targets.https))
        assert tls.getpeername()[:2] == (here, targets.https)
        assert fetch(tls).startswith("socksy target at ")


@WAYS
def test_the_certificate_is_checked(url: Url, targets: Targets, scheme: str, name: str):
    """For the name that was asked for, wherever the bytes come from."""
    address = "127.0.0.1", targets.https
    sock = socksy.create_connection(address, timeout=10, proxy=url(scheme, name))
    with sock, pytest.raises(ssl.SSLCertVerificationError):
        targets.trusting.wrap_socket(sock, server_hostname="other.test.example")
