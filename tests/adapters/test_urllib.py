"""`socksy.adapters.urllib`."""

import ssl
import urllib.error
import urllib.request
from typing import ClassVar

import pytest

import socksy
from socksy.adapters.urllib import SocksHandler

from ..support import unused_port
from . import behaviours
from .behaviours import NAME, Behaviours

server, sites, tls, trusted = behaviours.FIXTURES


class UrllibClient(behaviours.Client):
    errors: ClassVar = {
        "proxy": urllib.error.URLError,
        "connect timeout": urllib.error.URLError,
        "read timeout": TimeoutError,
        "target": urllib.error.URLError,
        "tls": urllib.error.URLError,
    }
    connections_for_two = 2  # urllib keeps nothing alive

    def __init__(self, proxy, trusted):
        context = ssl.create_default_context(cafile=trusted)
        self.opener = urllib.request.build_opener(SocksHandler(proxy, context))

    def request(self, method, url, body=None, connect=5, read=5):
        data = None if body is None else iter(body)
        request = urllib.request.Request(url, data, method=method)
        # it has one timeout only
        with self.opener.open(request, timeout=min(connect, read)) as response:
            return response.status, response.read()

    def ours(self, error):
        return error.reason


class TestUrllib(Behaviours):
    Client = UrllibClient


OTHERS = {
    "alone": [],
    "ProxyHandler": [urllib.request.ProxyHandler],
    "HTTPSHandler": [urllib.request.HTTPSHandler, urllib.request.HTTPHandler],
    "several": [
        urllib.request.HTTPCookieProcessor,
        urllib.request.HTTPBasicAuthHandler,
        urllib.request.HTTPSHandler,
    ],
}


@pytest.mark.parametrize("others", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("first", [True, False])
def test_other_handlers_in_any_order(server, sites, trusted, monkeypatch, others, first):
    """A proxy in the environment is not used either."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{unused_port()}")
    ours = [SocksHandler(server.url(), ssl.create_default_context(cafile=trusted))]
    handlers = [other() for other in others]
    opener = urllib.request.build_opener(*(ours + handlers if first else handlers + ours))

    for scheme in sites:
        with opener.open(sites[scheme].url(host=NAME), timeout=5) as response:
            assert response.read() == b"hello"
    assert len(server.requests) == 2


def test_the_target_is_verified_by_default(server, sites):
    opener = urllib.request.build_opener(SocksHandler(server.url()))

    with pytest.raises(urllib.error.URLError) as caught:
        opener.open(sites["https"].url(host=NAME), timeout=5)

    assert isinstance(caught.value.reason, ssl.SSLCertVerificationError)


@pytest.mark.parametrize("redirected", [True, False])
def test_ftp_is_refused(server, sites, redirected):
    """Nothing else would keep a redirect to ftp:// from going direct."""
    opener = urllib.request.build_opener(SocksHandler(server.url()))
    there = f"ftp://127.0.0.1:{unused_port()}/"
    url = sites["http"].url(f"/away?{there}", NAME) if redirected else there

    with pytest.raises(urllib.error.URLError) as caught:
        opener.open(url, timeout=5)

    assert isinstance(caught.value.reason, socksy.ProxyUnsupportedError)


def test_the_default_proxy_is_that_of_the_moment(server, sites):
    opener = urllib.request.build_opener(SocksHandler())

    with socksy.using(server.url()):
        opener.open(sites["http"].url(host=NAME), timeout=5).close()

    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://[fe80::1%25lo]/", socksy.InvalidTargetError),
        ("https://[fe80::1%25lo]/", socksy.InvalidTargetError),
        ("http://\u2488test/", socksy.InvalidTargetError),
        (f"http://{'ä' * 300}.test/", socksy.InvalidTargetError),
    ],
)
def test_a_target_that_no_proxy_takes(server, url, reason):
    opener = urllib.request.build_opener(SocksHandler(server.url()))

    with pytest.raises(urllib.error.URLError) as caught:
        opener.open(url, timeout=5)

    assert isinstance(caught.value.reason, reason)
    assert server.requests == []


def test_an_onion_without_a_proxy(no_local_lookup):
    """Only Tor knows it: it is not looked up here."""
    opener = urllib.request.build_opener(SocksHandler(lambda host, port: None))

    with pytest.raises(urllib.error.URLError) as caught:
        opener.open("http://abc.onion/", timeout=5)

    assert isinstance(caught.value.reason, socksy.ProxyUnsupportedError)


def test_a_wrong_proxy_is_told_at_once():
    with pytest.raises(socksy.InvalidProxyError):
        SocksHandler("socks7://127.0.0.1")
