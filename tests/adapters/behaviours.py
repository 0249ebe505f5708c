"""What every adapter does, whatever its library: one table, run for each of them.

A library is a `Client`. What its errors are called is in `errors`, with these keys: "proxy" (a
fault of its own), "connect timeout", "read timeout", "target" and "tls".
"""

import ssl
from typing import ClassVar
from urllib.parse import quote

import pytest
import trustme

import socksy
from socksy.testing import faults

from ..support import unused_port
from .web import LARGE, site

NAME = "only-the-proxy-knows.test"
INTERNATIONAL = "bücher.test"
A_LABELS = "xn--bcher-kva.test"
UNCERTIFIED = "another-site.test"
# each of these means something in a URL, or is not ASCII
USERNAME, PASSWORD = "us:er@/%ü", "p@ss:/%é?#"


class Client:
    """One library with its adapter on, seen from outside."""

    errors: ClassVar[dict[str, type[Exception]]] = {}
    #: how many connections two requests to one site take
    connections_for_two = 1
    #: whether ours is the deadline that passes, and not one of the library's above it
    has_our_deadline = True

    def __init__(self, proxy, trusted):
        """`proxy`: as for the adapter. `trusted`: the file of the authority to be trusted."""

    def request(self, method, url, body=None, connect=5, read=5):
        """Status and body of the answer; `body` is a list of bytes, to be streamed.

        `connect` and `read` are seconds.
        """

    def close(self):
        """Close what is kept alive."""

    def ours(self, error):
        """Our error that is behind one of the library's."""
        return error.__cause__


def make_authority(folder):
    """A server's context for all our names, and the file that makes it trusted."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(NAME, A_LABELS, "127.0.0.1", "::1").configure_cert(context)
    path = folder / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return context, str(path)


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    return make_authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def trusted(tls):
    return tls[1]


@pytest.fixture
def sites(tls):
    """A site without TLS and one with, as {scheme: site}."""
    with site() as plain, site(context=tls[0]) as secure:
        yield {"http": plain, "https": secure}


@pytest.fixture
def server(socks_server_factory):
    """A proxy that knows names which this machine does not."""
    return socks_server_factory(names=dict.fromkeys((NAME, A_LABELS, UNCERTIFIED), "127.0.0.1"))


FIXTURES = server, sites, tls, trusted


class Behaviours:
    """The table. A subclass says which `Client` it is about."""

    Client = Client

    @pytest.fixture
    def connect_client(self, trusted, sites):
        """Makes clients, and closes them in the end, before the sites close."""
        clients = []

        def connect_client(proxy):
            clients.append(self.Client(proxy, trusted))
            return clients[-1]

        yield connect_client
        for client in clients:
            client.close()

    @pytest.fixture
    def client(self, connect_client, server):
        return connect_client(server.url())

    def failure(self, client, kind, url, **options):
        """Our error behind the library's, which is of this kind and no other."""
        with pytest.raises(client.errors[kind]) as caught:
            client.request("GET", url, **options)
        for other in {"proxy", "connect timeout", "target"} - {kind}:
            if not issubclass(client.errors[kind], client.errors[other]):
                assert not isinstance(caught.value, client.errors[other])
        return client.ours(caught.value)

    # -- requests

    @pytest.mark.trap(44)
    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_get(self, client, sites, server, no_local_lookup, scheme):
        """The proxy resolves the name; http is tunnelled too, and the site sees no proxy."""
        assert client.request("GET", sites[scheme].url(host=NAME)) == (200, b"hello")
        assert [request.host for request in server.requests] == [NAME]
        line, headers = sites[scheme].heard[0]
        assert line == "GET / HTTP/1.1"
        assert not [name for name in headers if name.lower().startswith("proxy-")]

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_post_with_a_streamed_body(self, client, sites, scheme):
        pieces = [b"first ", b"second ", b"third"]

        assert client.request("POST", sites[scheme].url("/echo", NAME), body=pieces) == (
            200,
            b"first second third",
        )

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_a_large_download(self, client, sites, scheme):
        assert client.request("GET", sites[scheme].url("/large", NAME)) == (200, LARGE)

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_keep_alive(self, client, sites, server, scheme):
        for _ in range(2):
            client.request("GET", sites[scheme].url(host=NAME))

        assert len(server.requests) == client.connections_for_two

    def test_a_redirect_goes_through_the_proxy_too(self, client, sites, server):
        there = sites["https"].url(host=A_LABELS)

        assert client.request("GET", sites["http"].url(f"/away?{there}", NAME)) == (200, b"hello")
        assert [request.host for request in server.requests] == [NAME, A_LABELS]

    def test_an_ipv6_literal(self, client, server, tls):
        for context in (None, tls[0]):
            with site("::1", context) as there:
                assert client.request("GET", there.url(host="[::1]")) == (200, b"hello")
        assert [request.host for request in server.requests] == ["::1", "::1"]

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_an_international_host(self, client, sites, server, scheme):
        assert client.request("GET", sites[scheme].url(host=INTERNATIONAL)) == (200, b"hello")
        assert [request.host for request in server.requests] == [A_LABELS]

    @pytest.mark.parametrize("scheme", ["socks5h", "http"])
    def test_every_character_in_a_login(self, connect_client, sites, socks_server_factory, scheme):
        username = USERNAME.replace(":", "") if scheme == "http" else USERNAME  # RFC 7617
        server = socks_server_factory(users={username: PASSWORD})
        login = f"{quote(username, safe='')}:{quote(PASSWORD, safe='')}"
        client = connect_client(f"{scheme}://{login}@127.0.0.1:{server.port}")

        assert client.request("GET", sites["http"].url()) == (200, b"hello")

    def test_a_chain_and_a_callable(self, connect_client, sites, server, socks_server_factory):
        second = socks_server_factory()
        client = connect_client(lambda host, port: [server.url("socks4a"), second.url("http")])

        assert client.request("GET", sites["https"].url()) == (200, b"hello")
        assert len(server.requests) == len(second.requests) == 1

    def test_the_default_proxy_and_no_proxy(self, connect_client, sites, server):
        """None is a direct connection, also where there is a default proxy."""
        client = connect_client(None)
        with socksy.using(server.url()):
            assert client.request("GET", sites["https"].url()) == (200, b"hello")

        assert server.requests == []

    # -- what goes wrong

    @pytest.mark.trap(43)
    def test_a_target_that_refuses(self, client, server):
        ours = self.failure(client, "target", f"http://127.0.0.1:{unused_port()}/")

        assert isinstance(ours, socksy.TargetRefusedError)

    @pytest.mark.trap(43)
    def test_a_proxy_that_is_dead(self, connect_client):
        client = connect_client(f"socks5h://127.0.0.1:{unused_port()}")

        ours = self.failure(client, "proxy", f"https://{NAME}/")

        assert isinstance(ours, socksy.ProxyConnectionError)

    @pytest.mark.trap(43)
    def test_a_login_that_is_refused(self, connect_client, socks_server_factory):
        server = socks_server_factory(users={"alice": "secret"})
        client = connect_client(server.url(password="guess-me"))

        ours = self.failure(client, "proxy", f"https://{NAME}/")

        assert isinstance(ours, socksy.ProxyAuthenticationError)

    @pytest.mark.trap(43)
    def test_a_proxy_that_stalls(self, connect_client, socks_server_factory):
        """The connect timeout is one deadline over the handshake."""
        server = socks_server_factory(faults=faults.stall_at("the reply"))
        client = connect_client(server.url())

        ours = self.failure(client, "connect timeout", f"https://{NAME}/", connect=0.2)

        assert isinstance(ours, socksy.ProxyTimeoutError) or not client.has_our_deadline

    def test_a_target_that_stalls(self, client, sites):
        with pytest.raises(client.errors["read timeout"]):
            client.request("GET", sites["http"].url("/slow"), read=0.2)

    def test_a_target_with_another_name(self, client, sites):
        """TLS checks the name that was asked for, not the proxy's."""
        with pytest.raises(client.errors["tls"]):
            client.request("GET", sites["https"].url(host=UNCERTIFIED))

    def test_errors_do_not_tell_the_password(self, connect_client, socks_server_factory):
        server = socks_server_factory(users={"alice": "secret"})
        client = connect_client(server.url(password="guess-me"))
        error = None
        try:
            client.request("GET", f"http://{NAME}/")
        except Exception as exc:
            error = exc

        while error is not None:
            assert "guess-me" not in f"{error} {error!r} {error.args!r}"
            error = error.__cause__ or error.__context__
