"""`socksy.adapters.urllib3`."""

import ssl
from typing import ClassVar

import pytest
import urllib3

import socksy
from socksy.adapters.urllib3 import SocksProxyManager
from socksy.testing import faults

from ..support import unused_port
from . import behaviours
from .behaviours import NAME, Behaviours

server, sites, tls, trusted = behaviours.FIXTURES


class Urllib3Client(behaviours.Client):
    errors: ClassVar = {
        "proxy": urllib3.exceptions.ProxyError,
        "connect timeout": urllib3.exceptions.ConnectTimeoutError,
        "read timeout": urllib3.exceptions.ReadTimeoutError,
        "target": urllib3.exceptions.NewConnectionError,
        "tls": urllib3.exceptions.SSLError,
    }

    def __init__(self, proxy, trusted):
        self.manager = SocksProxyManager(proxy, ca_certs=trusted)

    def request(self, method, url, body=None, connect=5, read=5):
        try:
            response = self.manager.request(
                method,
                url,
                body=body and iter(body),
                timeout=urllib3.Timeout(connect=connect, read=read),
                retries=urllib3.Retry(None, connect=0, read=0, other=0, redirect=3),
            )
        except urllib3.exceptions.MaxRetryError as exc:
            raise exc.reason from exc.reason.__cause__
        return response.status, response.data

    def close(self):
        self.manager.clear()


class TestUrllib3(Behaviours):
    Client = Urllib3Client


@pytest.fixture
def connect_manager():
    """Makes managers, and empties them in the end."""
    managers = []

    def connect_manager(*arguments, **options):
        managers.append(SocksProxyManager(*arguments, **options))
        return managers[-1]

    yield connect_manager
    for manager in managers:
        manager.clear()


@pytest.mark.trap(42)
def test_connections_are_not_shared_between_credentials(
    socks_server_factory, sites, connect_manager
):
    """A callable that gives each request another login gets another connection."""
    server = socks_server_factory(users=lambda username, password: True)
    identities = iter(("alice", "bob", "alice"))
    manager = connect_manager(
        lambda host, port: server.proxy(username=next(identities), password="secret")
    )

    for _ in range(3):
        assert manager.request("GET", sites["http"].url()).data == b"hello"

    assert [request.username for request in server.requests] == ["alice", "bob"]
    assert len(manager.pools) == 2


@pytest.mark.trap(42)
def test_the_pools_are_bounded(socks_server_factory, sites, connect_manager):
    server = socks_server_factory(users=lambda username, password: True)
    tokens = iter(range(10))
    manager = connect_manager(
        lambda host, port: server.proxy(username="isolated", password=str(next(tokens))),
        num_pools=3,
    )

    for _ in range(10):
        manager.request("GET", sites["http"].url())

    assert len(manager.pools) == 3
    assert len(server.requests) == 10


def test_the_default_proxy_is_that_of_the_moment(server, sites, connect_manager):
    """And a connection made without it is not used with it."""
    manager = connect_manager()

    manager.request("GET", sites["http"].url())
    assert server.requests == []
    with socksy.using(server.url()):
        manager.request("GET", sites["http"].url())

    assert len(server.requests) == 1


def test_the_target_is_verified_by_default(server, sites, connect_manager):
    with pytest.raises(urllib3.exceptions.MaxRetryError) as caught:
        connect_manager(server.url()).request("GET", sites["https"].url(host=NAME), retries=0)

    assert isinstance(caught.value.reason.args[0], ssl.SSLCertVerificationError)


@pytest.mark.parametrize("host", ["a" * 256, "[fe80::1%251]"])
def test_a_target_that_no_proxy_takes(server, connect_manager, host):
    """Its name is too long, or its zone means nothing elsewhere."""
    with pytest.raises(urllib3.exceptions.LocationValueError):
        connect_manager(server.url()).request("GET", f"http://{host}/")

    assert server.requests == server.errors == []


RETRIES = [
    urllib3.Retry(connect=2),
    urllib3.Retry(total=None, connect=2),
    urllib3.Retry(total=None, connect=2, other=5),
    urllib3.Retry(5),
]


@pytest.mark.parametrize("retries", RETRIES, ids=str)
@pytest.mark.parametrize("fault", [None, faults.close_before("the login answer")], ids=str)
def test_a_refused_login_is_not_tried_again(socks_server_factory, connect_manager, retries, fault):
    """It would be refused again, until the account is locked. Some proxies just hang up."""
    logins = []
    server = socks_server_factory(
        users=lambda username, password: logins.append(username), faults=fault or ()
    )
    manager = connect_manager(server.url(username="alice", password="guess"))

    with pytest.raises(urllib3.exceptions.MaxRetryError) as caught:
        manager.request("GET", "http://a.test/", retries=retries)

    assert isinstance(caught.value.reason, urllib3.exceptions.ProxyError)
    assert isinstance(caught.value.reason.__cause__, socksy.ProxyError)
    assert caught.value.__cause__ is caught.value.reason
    assert logins == [b"alice"]


def test_what_a_proxy_cannot_do_is_not_tried_again(server, connect_manager):
    with pytest.raises(urllib3.exceptions.MaxRetryError) as caught:
        connect_manager(server.url("socks4")).request("GET", "http://[::1]/", retries=RETRIES[1])

    assert isinstance(caught.value.reason.__cause__, socksy.ProxyUnsupportedError)


def test_without_retries_a_refused_login_is_raised_as_it_is(socks_server_factory, connect_manager):
    """As urllib3 does with every error."""
    server = socks_server_factory(users={"alice": "secret"})
    manager = connect_manager(server.url(password="guess"))

    for retries in (False, urllib3.Retry(False)):
        with pytest.raises(urllib3.exceptions.ProxyError) as caught:
            manager.request("GET", "http://a.test/", retries=retries)
        assert isinstance(caught.value.__cause__, socksy.ProxyAuthenticationError)


@pytest.mark.parametrize("retries", RETRIES[:2], ids=str)
def test_a_dead_proxy_and_one_that_hangs_up_are_connect_errors(
    socks_server_factory, connect_manager, retries
):
    """`Retry(connect=...)` tries again what may be better then."""
    server = socks_server_factory(faults=faults.close_before("the reply"))
    with pytest.raises(urllib3.exceptions.MaxRetryError) as caught:
        connect_manager(server.url()).request("GET", "http://a.test/", retries=retries)
    assert isinstance(caught.value.reason, urllib3.exceptions.ProxyError)
    assert isinstance(caught.value.reason.__cause__, socksy.ProxyProtocolError)
    server.wait_until_idle()
    assert len(server.requests) == 3

    dead = connect_manager(f"socks5h://127.0.0.1:{unused_port()}")
    with pytest.raises(urllib3.exceptions.MaxRetryError) as caught:
        dead.request("GET", "http://a.test/", retries=urllib3.Retry(connect=0, other=5))
    assert isinstance(caught.value.reason, urllib3.exceptions.ProxyError)


def test_errors_name_pools_and_connections_as_urllib3_does(server, connect_manager):
    """For people, and for programs that look for these words."""
    for scheme in ("http", "https"):
        with pytest.raises(urllib3.exceptions.MaxRetryError) as caught:
            connect_manager(server.url()).request(
                "GET", f"{scheme}://127.0.0.1:{unused_port()}/", retries=0
            )
        assert str(caught.value).startswith(f"Socks{scheme.upper()}ConnectionPool(host=")
        assert f"Socks{scheme.upper()}Connection" in str(caught.value.reason)


def test_a_name_that_cannot_be_looked_up_here(server, connect_manager):
    with pytest.raises(urllib3.exceptions.NameResolutionError) as caught:
        connect_manager(server.url("socks5")).request(
            "GET", "http://nowhere.invalid/", retries=False
        )

    assert isinstance(caught.value.__cause__, socksy.NameLookupError)


def test_socket_options_and_source_address(server, sites, connect_manager):
    """They are those of the connection to the proxy."""
    port = unused_port()
    manager = connect_manager(server.url(), source_address=("127.0.0.1", port))
    pool = manager.connection_from_url(sites["http"].url())
    pool.request("GET", "/")

    connection = pool._get_conn()
    assert connection.sock.proxy_sockname == ("127.0.0.1", port)
    connection.close()


def test_no_host(server, connect_manager):
    with pytest.raises(urllib3.exceptions.LocationValueError):
        connect_manager(server.url()).connection_from_host("")


def test_a_wrong_proxy_is_told_at_once():
    with pytest.raises(socksy.InvalidProxyError):
        SocksProxyManager("socks7://127.0.0.1")
