"""`socksy.adapters.requests`."""

import pickle
import subprocess
import sys
from typing import ClassVar

import pytest
import requests
import trustme
import urllib3
from requests.exceptions import ConnectionError, ConnectTimeout, ProxyError, ReadTimeout, SSLError

import socksy
from socksy.adapters.requests import SocksAdapter, SocksSession

from ..support import unused_port
from . import behaviours
from .behaviours import NAME, Behaviours

server, sites, tls, trusted = behaviours.FIXTURES


class RequestsClient(behaviours.Client):
    errors: ClassVar = {
        "proxy": ProxyError,
        "connect timeout": ConnectTimeout,
        "read timeout": ReadTimeout,
        "target": ConnectionError,
        "tls": SSLError,
    }

    def __init__(self, proxy, trusted):
        self.session = SocksSession(proxy)
        self.trusted = trusted

    def request(self, method, url, body=None, connect=5, read=5):
        response = self.session.request(
            method, url, data=body and iter(body), timeout=(connect, read), verify=self.trusted
        )
        return response.status_code, response.content

    def close(self):
        self.session.close()


class TestRequests(Behaviours):
    Client = RequestsClient


def test_an_adapter_is_mounted_by_hand_too(server, sites):
    """On any session."""
    with requests.Session() as session:
        session.mount("http://", SocksAdapter(server.url()))

        assert session.get(sites["http"].url(host=NAME)).text == "hello"


def test_a_session_has_no_way_around_the_proxy(server):
    """Neither of the two schemes that requests knows."""
    with SocksSession(server.url()) as session:
        assert set(session.adapters) == {"http://", "https://"}
        for adapter in session.adapters.values():
            assert isinstance(adapter, SocksAdapter)
        with pytest.raises(requests.exceptions.InvalidSchema):
            session.get("ftp://a.test/")
    with pytest.raises(socksy.InvalidProxyError):
        SocksSession("socks7://127.0.0.1")


def test_the_rest_of_the_environment_counts(server, sites, tls, tmp_path, clean_environment):
    """Whom to trust, and logins for sites, unless the session is told not to look."""
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine {NAME} login me password secret")
    clean_environment.setenv("NETRC", str(netrc))
    clean_environment.setenv("REQUESTS_CA_BUNDLE", tls[1])
    with SocksSession(server.url()) as session:
        assert session.get(sites["https"].url(host=NAME)).text == "hello"
        session.trust_env = False
        assert session.get(sites["https"].url(host=NAME), verify=tls[1]).text == "hello"

    (_, first), (_, second) = sites["https"].heard
    assert "Authorization" in first
    assert "Authorization" not in second


@pytest.fixture
def clean_environment(monkeypatch):
    """Sets proxies in the environment, which has none otherwise."""
    for scheme in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{scheme}_proxy", raising=False)
        monkeypatch.delenv(f"{scheme.upper()}_PROXY", raising=False)
    return monkeypatch


@pytest.mark.trap(42)
def test_connections_are_not_shared_between_credentials(socks_server_factory, sites):
    """Of ``proxies=``; and the pools of all of them together are bounded."""
    server = socks_server_factory(users=lambda username, password: True)
    with SocksSession(pool_connections=2) as session:
        for username in ("alice", "bob", "alice", "carol", "dave", "alice"):
            proxies = {"http": f"socks5h://{username}:secret@127.0.0.1:{server.port}"}
            session.get(sites["http"].url(), proxies=proxies)
        adapter = session.get_adapter("http://")

        assert len(adapter.poolmanager.pools) == 2
        assert adapter.proxy_manager == {}
    assert [request.username for request in server.requests] == [
        "alice",
        "bob",
        "carol",
        "dave",
        "alice",
    ]


@pytest.mark.parametrize("scheme", ["socks5h", "socks5", "socks4a", "socks4", "socks"])
@pytest.mark.parametrize("key", ["http", "all", "http://127.0.0.1", "all://127.0.0.1"])
def test_proxies_of_a_request(server, sites, scheme, key, clean_environment):
    with SocksSession() as session:
        proxies = {key: f"{scheme}://127.0.0.1:{server.port}"}

        assert session.get(sites["http"].url(), proxies=proxies).text == "hello"
    assert len(server.requests) == 1


def test_proxies_of_the_environment(server, sites, clean_environment, trusted):
    """Desktops write ``socks://`` and a slash behind it."""
    clean_environment.setenv("all_proxy", f"socks://127.0.0.1:{server.port}/")
    with SocksSession() as session:
        for scheme in sites:
            assert session.get(sites[scheme].url(host=NAME), verify=trusted).text == "hello"
    assert len(server.requests) == 2


def test_an_http_proxy_is_requests_own_matter(server, sites, clean_environment, trusted):
    clean_environment.setenv("https_proxy", f"http://127.0.0.1:{server.port}")
    with SocksSession() as session:
        assert session.get(sites["https"].url(host=NAME), verify=trusted).text == "hello"
    assert server.requests[0].protocol == "HTTP"


@pytest.mark.parametrize("no_proxy", ["", "*"])
def test_the_environment_does_not_lead_around_the_own_proxy(
    server, sites, clean_environment, no_proxy
):
    clean_environment.setenv("http_proxy", f"http://127.0.0.1:{unused_port()}")
    clean_environment.setenv("no_proxy", no_proxy)
    with SocksSession(server.url()) as session:
        assert session.get(sites["http"].url(host=NAME)).text == "hello"
    assert len(server.requests) == 1


def test_proxies_of_a_request_go_before_the_own_proxy(server, sites, clean_environment):
    with SocksSession(f"socks5h://127.0.0.1:{unused_port()}") as session:
        session.get(sites["http"].url(), proxies={"http": server.url()})
    assert len(server.requests) == 1


@pytest.mark.trap(44)
@pytest.mark.parametrize("own", [True, False])
def test_a_redirect_tells_the_site_no_credentials(
    socks_server_factory, sites, clean_environment, own
):
    """requests adds a Proxy-Authorization to what it redirects, which is for HTTP proxies."""
    server = socks_server_factory(users={"alice": "secret"})
    clean_environment.setenv("http_proxy", server.url())
    with SocksSession(*([server.url()] if own else [])) as session:
        there = sites["http"].url("/there")
        assert session.get(sites["http"].url(f"/away?{there}")).text == "hello"

    (_, first), (_, second) = sites["http"].heard
    assert "Proxy-Authorization" not in first
    assert "Proxy-Authorization" not in second


def test_the_default_proxy_goes_last(server, sites, clean_environment):
    with SocksSession() as session, socksy.using(server.url()):
        session.get(sites["http"].url(host=NAME))
    assert len(server.requests) == 1


@pytest.mark.parametrize("proxy", ["socks5h://", "socks7://127.0.0.1", "socks5h://u:guess-me@::1"])
def test_a_wrong_proxy_of_a_request(sites, proxy, clean_environment):
    with SocksSession() as session:
        with pytest.raises(requests.exceptions.InvalidProxyURL) as caught:
            session.get(sites["http"].url(), proxies={"http": proxy})

    assert isinstance(caught.value.__cause__, socksy.InvalidProxyError)
    assert "guess-me" not in str(caught.value)


def test_an_onion_without_a_proxy(clean_environment, no_local_lookup):
    """Only Tor knows it: it is not looked up here."""
    with SocksSession(lambda host, port: None) as session:
        with pytest.raises(requests.exceptions.InvalidURL) as caught:
            session.get("http://abc.onion/")

    assert isinstance(caught.value.__cause__, socksy.ProxyUnsupportedError)


def test_a_target_that_no_proxy_takes(server, clean_environment):
    with SocksSession(server.url()) as session:
        with pytest.raises(requests.exceptions.InvalidURL) as caught:
            session.get("http://[fe80::1%251]/")

    assert isinstance(caught.value.__cause__, socksy.InvalidTargetError)
    assert server.requests == []


def test_a_refused_login_is_not_tried_again(socks_server_factory, clean_environment):
    logins = []
    server = socks_server_factory(users=lambda username, password: logins.append(username))
    retries = urllib3.Retry(total=None, connect=2)
    with SocksSession(
        server.url(username="alice", password="guess"), max_retries=retries
    ) as session:
        with pytest.raises(ProxyError):
            session.get("http://a.test/")

    assert logins == [b"alice"]


def test_options_are_those_of_an_http_adapter(socks_server_factory, clean_environment):
    """Here the number of attempts."""
    server = socks_server_factory(names={})
    with SocksSession(server.url(), max_retries=urllib3.Retry(connect=2)) as session:
        with pytest.raises(ConnectionError):
            session.get("http://unknown.test/")

    assert len(server.requests) == 3


def test_a_client_certificate(server, tls, sites, tmp_path, clean_environment):
    """Of an authority that the site does not ask for: it is loaded, and that is all."""
    mine = tmp_path / "mine.pem"
    trustme.CA().issue_cert("me.test").private_key_and_cert_chain_pem.write_to_path(mine)
    with SocksSession(server.url()) as session:
        url = sites["https"].url(host=NAME)

        assert session.get(url, verify=tls[1], cert=str(mine)).text == "hello"
        with pytest.raises(OSError, match="TLS certificate"):
            session.get(url, verify=tls[1], cert=str(tmp_path / "nobody.pem"))


def test_verify_can_be_turned_off(server, sites, clean_environment):
    """As with any adapter, which urllib3 warns of."""
    with SocksSession(server.url()) as session:
        with pytest.warns(urllib3.exceptions.InsecureRequestWarning):
            assert session.get(sites["https"].url(host=NAME), verify=False).text == "hello"


def test_it_can_be_pickled(server, sites, clean_environment):
    for proxy in ((server.url(),), ()):
        with pickle.loads(pickle.dumps(SocksSession(*proxy, pool_connections=3))) as session:
            with socksy.using(server.url()):
                session.get(sites["http"].url(host=NAME))
            assert session.get_adapter("http://")._pool_connections == 3
    assert len(server.requests) == 2


def test_an_error_that_is_not_about_the_proxy_is_left_alone(server, sites, clean_environment):
    with SocksSession(server.url()) as session:
        with pytest.raises(SSLError) as caught:
            session.get(sites["https"].url(host=NAME))

    assert not isinstance(caught.value.__cause__, socksy.ProxyError)


def test_it_needs_no_pysocks():
    """Nor does importing socksy import any of these libraries."""
    script = """
import sys
sys.modules["socks"] = None
import socksy
assert not {"requests", "urllib3"} & set(sys.modules)
import socksy.adapters.requests
socksy.adapters.requests.SocksAdapter("socks5h://127.0.0.1")
"""
    subprocess.run([sys.executable, "-c", script], check=True)
