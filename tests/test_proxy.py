"""A proxy as a value: its URL, the environment, chains."""

import copy
import ipaddress
import pickle
import traceback

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from socksy.errors import InvalidProxyError, InvalidTargetError
from socksy.proxy import Proxy, as_route, choose, encode_login

# What `from_url` reads, and the arguments that make the same
URLS = [
    ("socks5h://127.0.0.1:1080", ("socks5h", "127.0.0.1", 1080), {}),
    ("SOCKS5H://Proxy.Example", ("socks5h", "Proxy.Example", 1080), {}),
    ("socks://proxy", ("socks5h", "proxy", 1080), {}),
    ("socks5://proxy", ("socks5", "proxy", 1080), {}),
    ("socks4a://proxy", ("socks4a", "proxy", 1080), {}),
    ("socks4://proxy", ("socks4", "proxy", 1080), {}),
    ("http://proxy", ("http", "proxy", 8080), {}),
    ("http://proxy:80/", ("http", "proxy", 80), {}),
    ("  socks5h://proxy\n", ("socks5h", "proxy", 1080), {}),
    ("socks5h://proxy:", ("socks5h", "proxy", 1080), {}),
    ("socks5h://proxy:0443", ("socks5h", "proxy", 443), {}),
    ("socks5h://proxy:65535", ("socks5h", "proxy", 65535), {}),
    ("socks5h://[::1]:9050", ("socks5h", "::1", 9050), {}),
    ("socks5h://[::1]", ("socks5h", "::1", 1080), {}),
    ("socks5h://[fe80::1%25eth0]:1", ("socks5h", "fe80::1%eth0", 1), {}),
    ("socks5h://[fe80::1%eth0]:1", ("socks5h", "fe80::1%eth0", 1), {}),
    ("socks5h://bücher.example", ("socks5h", "xn--bcher-kva.example", 1080), {}),
    # logins
    ("socks5h://u:p@proxy", ("socks5h", "proxy"), {"username": "u", "password": "p"}),
    ("socks5h://u:@proxy", ("socks5h", "proxy"), {"username": "u", "password": ""}),
    ("socks5h://u@proxy", ("socks5h", "proxy"), {"username": "u"}),
    ("socks5h://@proxy", ("socks5h", "proxy"), {}),
    ("socks5h://u:p@@q@proxy", ("socks5h", "proxy"), {"username": "u", "password": "p@@q"}),
    ("socks5h://u:p:q@proxy", ("socks5h", "proxy"), {"username": "u", "password": "p:q"}),
    ("socks5h://[u:p]@proxy", ("socks5h", "proxy"), {"username": "[u", "password": "p]"}),
    ("socks5h://u+%2B:%40%3a@proxy", ("socks5h", "proxy"), {"username": "u++", "password": "@:"}),
    ("socks5h://%2525:%zz%@proxy", ("socks5h", "proxy"), {"username": "%25", "password": "%zz%"}),
    ("socks5h://ä:%C3%A4@proxy", ("socks5h", "proxy"), {"username": "ä", "password": "ä"}),
    ("socks5h://%FF@proxy", ("socks5h", "proxy"), {"username": "\udcff"}),
    ("socks5h://%00@proxy", ("socks5h", "proxy"), {"username": "\0"}),
    ("socks4a://alice@proxy", ("socks4a", "proxy"), {"username": "alice"}),
    ("socks4a://alice:@proxy", ("socks4a", "proxy"), {"username": "alice", "password": ""}),
    ("http://:p@proxy", ("http", "proxy"), {"username": "", "password": "p"}),
    # Unix sockets
    ("socks5h://localhost/run/tor/socks", ("socks5h",), {"path": "/run/tor/socks"}),
    ("socks5h:///run/tor/socks", ("socks5h",), {"path": "/run/tor/socks"}),
    ("socks5h://LocalHost//a%20b%3F@c", ("socks5h",), {"path": "//a b?@c"}),
    (
        "socks5h://u:p@localhost/run/tor",
        ("socks5h",),
        {"path": "/run/tor", "username": "u", "password": "p"},
    ),
    ("socks5h://localhost/", ("socks5h", "localhost", 1080), {}),
]


@pytest.mark.parametrize(("url", "arguments", "options"), URLS)
class TestUrls:
    def test_are_read(self, url, arguments, options):
        assert Proxy.from_url(url) == Proxy(*arguments, **options)

    def test_are_written_so_that_they_can_be_read_again(self, url, arguments, options):
        proxy = Proxy(*arguments, **options)

        assert Proxy.from_url(proxy.to_url(with_credentials=True)) == proxy

    def test_are_written_without_credentials_unless_asked(self, url, arguments, options):
        proxy = Proxy(*arguments, **options)
        anonymous = proxy.replace(username=None, password=None).to_url()
        login = "***:***@" if "username" in options else ""

        assert proxy.to_url() == str(proxy) == anonymous.replace("://", f"://{login}", 1)
        assert repr(proxy) == f"<Proxy {proxy}>"


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("", "scheme"),
        ("proxy:1080", "scheme"),
        ("//proxy:1080", "scheme"),
        ("socks5h:/proxy", "scheme"),
        ("https://proxy", "unknown proxy scheme 'https'"),
        ("socks6://proxy", "unknown proxy scheme 'socks6'"),
        ("://proxy", "unknown proxy scheme"),
        ("socks5h://", "no host"),
        ("socks5h://:1080", "no host"),
        ("socks5h://proxy:0", "port"),
        ("socks5h://proxy:65536", "port"),
        ("socks5h://proxy:-1", "port"),
        ("socks5h://proxy:+1", "port"),
        ("socks5h://proxy: 1", "port"),
        ("socks5h://proxy:1_0", "port"),
        ("socks5h://proxy:٣", "port"),
        ("socks5h://proxy:" + "9" * 5000, "port"),
        ("socks5h://::1", "brackets"),
        ("socks5h://::1:1080", "brackets"),
        ("socks5h://proxy:1080:1080", "brackets"),
        ("socks5h://[::1", "bracket"),
        ("socks5h://[::1]x", "bracket"),
        ("socks5h://[::1]]:1", "bracket"),
        ("socks5h://[127.0.0.1]:1", "brackets"),
        ("socks5h://[proxy]", "brackets"),
        ("socks5h://[::1%25]", "IPv6"),
        ("socks5h://[:::]", "IPv6"),
        ("socks5h://proxy/path", "Unix socket"),
        ("socks5h://user:pass/word@proxy", "%2F"),
        ("socks5h://user:12/34@proxy:1", "%2F"),
        ("socks5h://us/er@proxy", "%2F"),
        ("socks5h://localhost:1/path", "Unix socket"),
        ("socks5h://127.0.0.1/path", "Unix socket"),
        ("socks5h://localhost/%00", "NUL"),
        ("socks5h://localhost/\ud800", "path"),
        ("socks5h://proxy?a=b", "%3F"),
        ("socks5h://proxy#a", "%23"),
        ("socks5h://pro xy", "' '"),
        ("socks5h://proxy\r\nx", "\\\\n"),
        ("socks5h://pro%78y", "'%'"),
        ("socks5h://pro\\xy", "cannot contain"),
        ("socks5h://☃.example", "international"),
        ("socks5h://:p@proxy", "user name is empty"),
        ("socks5h://:@proxy", "user name is empty"),
        ("socks4a://u:p@proxy", "no password"),
        ("socks4://%00@proxy", "NUL"),
        ("http://a%3Ab:p@proxy", "colon"),
        ("socks5h://a..b:1", "1 to 63"),
        ("socks5h://.proxy", "1 to 63"),
        ("socks5h://" + "a" * 64 + ".example", "1 to 63"),
        ("socks5h://a:1,socks5h://b:1", "a chain is a list"),
        ("socks5h://a:1, http://b:1", "a chain is a list"),
        ("socks5h://a:1 socks5h://b:1", "a chain is a list"),
        ("socks5h://a:1\nsocks5h://u:p@b:1", "a chain is a list"),
    ],
)
def test_a_wrong_url_says_what_is_wrong(url, text):
    with pytest.raises(InvalidProxyError, match=text):
        Proxy.from_url(url)


# Every mistake in a URL that has a login in it
@pytest.mark.parametrize(
    "url",
    [
        "{login}@proxy:1080",
        "//{login}@proxy:1080",
        "{login}://proxy",
        "{login}@socks5h://proxy",
        "https://{login}@proxy",
        "socks5h://{login}@",
        "socks5h://{login}",
        "socks5h://{login}:1080",
        "socks5h://{login}%40proxy",
        "socks5h://{login}@proxy:99999",
        "socks5h://{login}@pro xy",
        "socks5h://{login}@☃.example",
        "socks5h://{login}\uff20proxy",  # full width @
        "socks5h://{user}\uff1a{password}\uff20proxy",
        "socks5h://[{login}",
        "socks5h://[{login}]",
        "socks5h://[{login}%40proxy]",
        "socks5h://{login}/x@proxy",
        "socks5h://{user}/{password}@proxy",
        "socks5h://{login}?x@proxy",
        "socks5h://{login}#x@proxy",
        "socks5h://{login}\ud800@proxy",
        "socks5h://\ud800{user}:{password}@proxy",
        "socks5h://{login}{long}@proxy",
        "socks5h://{long}{login}@proxy",
        "socks5h://{login}@a..b",
        "socks5h://{login}@a,socks5h://{login}@b",
        "socks4a://{login}@proxy",
        "socks4a://{user}%00{password}@proxy",
        "http://{user}%3A{password}@proxy",
        "http://{login}\ud800@proxy",
    ],
)
def test_the_error_of_a_wrong_url_never_holds_its_credentials(url):
    user, password = "distinctive-user", "distinctive-password"
    login = f"{user}:{password}"
    with pytest.raises(InvalidProxyError) as caught:
        Proxy.from_url(url.format(user=user, password=password, login=login, long="x" * 256))

    said = ""
    error = caught.value
    while error is not None:
        said += repr((error, str(error), error.args, vars(error), getattr(error, "object", "")))
        said += str(pickle.dumps(error))
        error = error.__cause__ or error.__context__
    assert [secret for secret in (user, password) if secret in said] == []


LOGINS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


@settings(deadline=None)
@given(
    st.sampled_from(["socks5", "socks5h"]),
    st.sampled_from(["proxy", "127.0.0.1", "::1", "fe80::1%eth0", "localhost"]),
    st.integers(1, 65535),
    st.none() | LOGINS,
    st.none() | LOGINS,
    st.none() | LOGINS.map("/".__add__).filter(lambda path: "\0" not in path),
)
def test_any_proxy_comes_back_from_its_url_and_from_a_pickle(
    scheme, host, port, username, password, path
):
    if username is None:
        password = None
    proxy = Proxy(scheme, host, port, username=username, password=password, path=path)

    assert Proxy.from_url(proxy.to_url(with_credentials=True)) == proxy
    assert pickle.loads(pickle.dumps(proxy)) == proxy


@settings(deadline=None)
@given(st.sampled_from(["", "socks5h://", "socks4a://u@", "http://u:p@"]), st.text(max_size=40))
def test_any_text_is_a_url_or_an_error_of_ours(start, text):
    try:
        proxy = Proxy.from_url(start + text)
    except InvalidProxyError:
        return

    assert Proxy.from_url(proxy.to_url(with_credentials=True)) == proxy


class TestConstructor:
    @pytest.mark.parametrize("host", [b"127.0.0.1", ipaddress.ip_address("127.0.0.1")])
    def test_takes_any_kind_of_host(self, host):
        assert Proxy("socks5", host).host == "127.0.0.1"

    def test_takes_the_parts_of_a_url_and_not_all_of_it(self):
        with pytest.raises(InvalidProxyError, match="from_url") as caught:
            Proxy("socks5h://alice:sesame@proxy:1080")

        assert "sesame" not in str(caught.value)

    @pytest.mark.parametrize(
        "host", ["a" * 63 + ".b.", "_a-.b", "2001:db8:1111:2222:3333:4444:5555:6666%" + "a" * 64]
    )
    def test_takes_whatever_can_be_looked_up(self, host):
        assert Proxy("socks5", host).host == host

    def test_knows_where_to_connect_if_that_is_an_ipv4_address(self):
        assert Proxy("socks5", "192.0.2.1", 99).endpoint == ("192.0.2.1", 99)
        for elsewhere in (
            Proxy("socks5", "proxy"),
            Proxy("socks5", "::ffff:192.0.2.1"),
            Proxy("socks5", "192.0.2.1", path="/run/tor"),
        ):
            assert elsewhere.endpoint is None

    def test_takes_brackets_off(self):
        assert Proxy("socks5", "[::1]").host == "::1"

    @pytest.mark.parametrize("port", [0, -1, 65536, True, "80", 80.0])
    def test_takes_no_other_port_than_a_number_in_range(self, port):
        with pytest.raises(InvalidProxyError, match="from 1 to 65535"):
            Proxy("socks5", "proxy", port)

    @pytest.mark.parametrize("host", ["", "a b", "proxy:1080", "n" * 256, b"\xff"])
    def test_takes_no_host_that_is_none(self, host):
        with pytest.raises(InvalidProxyError, match="the proxy's host is wrong"):
            Proxy("socks5", host)

    @pytest.mark.parametrize("path", ["", "/", "run/tor", "/a\0b", "\0abstract", "/\ud800"])
    def test_takes_no_path_but_an_absolute_one(self, path):
        with pytest.raises(InvalidProxyError, match="absolute"):
            Proxy("socks5", path=path)

    @pytest.mark.parametrize(
        ("arguments", "options"),
        [
            ((None,), {}),
            ((b"socks5",), {}),
            (("socks5", None), {}),
            (("socks5", 127), {}),
            (("socks5",), {"username": b"alice"}),
            (("socks5",), {"username": "alice", "password": b"sesame"}),
            (("http",), {"username": 5}),
        ],
    )
    def test_takes_text_where_text_belongs(self, arguments, options):
        with pytest.raises(TypeError):
            Proxy(*arguments, **options)

    def test_does_not_take_a_login_by_position(self):
        with pytest.raises(TypeError):
            Proxy("socks5", "proxy", 1080, "alice", "sesame")

    def test_forgets_host_and_port_where_there_is_a_path(self):
        proxy = Proxy("socks5", "proxy", 99, path="/run/tor/socks")

        assert (proxy.host, proxy.port) == ("localhost", 0)
        assert proxy == Proxy("socks5", path="/run/tor/socks")


class TestLogins:
    @pytest.mark.trap(16, 18)
    @pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
    @pytest.mark.parametrize(
        ("username", "password"),
        [("u" * 255, "p" * 255), ("ä" * 127, ""), ("u", None), ("\r\n", "\0")],
    )
    def test_socks5_takes_1_to_255_bytes_and_as_password_none(self, scheme, username, password):
        proxy = Proxy(scheme, username=username, password=password)

        assert (proxy.username, proxy.password) == (username, password)

    @pytest.mark.parametrize(
        ("scheme", "options", "text"),
        [
            ("socks5", {"username": "u" * 256}, "user name has 256 bytes; SOCKS5 takes 255"),
            ("socks5", {"username": "ä" * 128}, "user name has 256 bytes"),
            ("socks5", {"username": "u", "password": "p" * 256}, "password has 256 bytes"),
            ("socks4", {"username": "ä" * 128}, "user name has 256 bytes; SOCKS4 takes 255"),
            ("socks5", {"username": ""}, "user name is empty"),
            ("socks5", {"password": "p"}, "user name is empty"),
            ("socks5", {"password": ""}, "user name is empty"),
            ("socks4", {"username": "u", "password": "p"}, "no password"),
            ("socks5", {"username": "\ud800"}, "user name cannot be encoded"),
            ("http", {"username": "u", "password": "\ud800"}, "password cannot be encoded"),
            ("http", {"username": "a:b"}, "colon"),
        ],
    )
    def test_what_cannot_be_sent_is_refused_when_it_is_set(self, scheme, options, text):
        with pytest.raises(InvalidProxyError, match=text):
            Proxy(scheme, **options)

    @pytest.mark.trap(20)
    @pytest.mark.parametrize("scheme", ["socks4", "socks4a"])
    def test_a_socks4_user_id_cannot_end_its_field_early(self, scheme):
        with pytest.raises(InvalidProxyError, match="NUL"):
            Proxy(scheme, username="alice\0example.org")

    @pytest.mark.trap(16)
    def test_an_empty_user_name_needs_an_option(self):
        proxy = Proxy("socks5", username="", password="", allow_empty_username=True)

        assert (proxy.username, proxy.password) == ("", "")
        assert Proxy.from_url("socks5://:@proxy", allow_empty_username=True).username == ""

    def test_http_takes_any_length(self):
        assert len(Proxy("http", username="u" * 999, password="p" * 999).username) == 999

    def test_a_password_alone_is_that_of_nobody(self):
        assert Proxy("http", password="p").username == ""

    @pytest.mark.trap(13)
    @pytest.mark.parametrize(
        ("scheme", "options"),
        [("socks5", {}), ("socks4", {"username": "u"}), ("http", {"username": "u"})],
    )
    def test_require_auth_needs_something_to_require(self, scheme, options):
        with pytest.raises(InvalidProxyError, match="require_auth"):
            Proxy(scheme, require_auth=True, **options)

    @pytest.mark.trap(13)
    def test_require_auth_can_go_with_a_url(self):
        proxy = Proxy.from_url("socks5h://u:p@proxy", require_auth=True)

        assert proxy.require_auth is True
        assert repr(proxy) == "<Proxy socks5h://***:***@proxy:1080 require_auth>"

    @pytest.mark.parametrize("scheme", ["socks4", "socks4a", "http"])
    def test_what_is_about_datagrams_needs_socks5(self, scheme):
        with pytest.raises(InvalidProxyError, match="no UDP"):
            Proxy(scheme, udp_source_unknown=True)

    @pytest.mark.parametrize(
        ("text", "sent"), [("alice", b"alice"), ("ä", b"\xc3\xa4"), ("\udcff", b"\xff")]
    )
    def test_are_sent_as_utf_8_or_as_the_bytes_that_a_url_had(self, text, sent):
        assert encode_login(text) == sent


class TestValue:
    alice = Proxy("socks5h", "proxy", username="alice", password="sesame")

    def test_cannot_be_changed(self):
        with pytest.raises(AttributeError, match="replace"):
            self.alice.port = 1
        with pytest.raises(AttributeError, match="replace"):
            del self.alice.port
        with pytest.raises(AttributeError):
            self.alice.color = "red"

        assert self.alice.port == 1080

    @pytest.mark.parametrize(
        "changes",
        [
            {"scheme": "socks5"},
            {"host": "other"},
            {"port": 1081},
            {"username": "bob"},
            {"password": "Sesame"},
            {"password": None},
            {"username": None, "password": None},
            {"path": "/run/tor"},
            {"require_auth": True},
            {"allow_empty_username": True},
            {"require_auth": True, "pipelined": True},
            {"udp_source_unknown": True},
        ],
    )
    def test_differs_in_everything_credentials_included(self, changes):
        other = self.alice.replace(**changes)

        assert other != self.alice
        assert len({other, self.alice, self.alice.replace()}) == 2
        for name, value in changes.items():
            assert getattr(other, name) == value

    def test_is_no_other_value(self):
        assert self.alice != str(self.alice)
        assert self.alice != self.alice.to_url(with_credentials=True)

    @pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, Proxy.replace])
    @pytest.mark.parametrize(
        "proxy",
        [
            alice,
            alice.replace(require_auth=True, pipelined=True, udp_source_unknown=True),
            Proxy("http", "::1", 3128),
            Proxy("socks5", path="/run/tor"),
            Proxy("socks5", username="", allow_empty_username=True),
        ],
    )
    def test_is_copied_whole(self, proxy, copied):
        assert copied(proxy) == proxy
        assert pickle.loads(pickle.dumps(proxy)) == proxy
        assert hash(copied(proxy)) == hash(proxy)

    def test_a_zone_is_percent_encoded_in_its_url(self):
        """RFC 6874; only our own parser takes it as it is."""
        assert str(Proxy("socks5", "fe80::1%eth0")) == "socks5://[fe80::1%25eth0]:1080"

    def test_can_go_from_a_path_back_to_a_port(self):
        assert Proxy("http", path="/run/x").replace(path=None, host="a") == Proxy("http", "a")

    def test_without_its_user_name_it_has_no_password_either(self):
        assert self.alice.replace(username=None) == Proxy("socks5h", "proxy")

    def test_an_empty_login_is_still_a_login_in_its_url(self):
        url = Proxy("http", "proxy", username="").to_url(with_credentials=True)

        assert Proxy.from_url(url).login == (b"", b"")

    def test_its_login_does_not_show(self):
        assert "sesame" not in f"{self.alice.login} {self.alice.login[1]} {self.alice.login[1]!r}"

    def test_replace_checks_as_the_constructor_does(self):
        with pytest.raises(InvalidProxyError):
            self.alice.replace(scheme="socks4")

    def test_is_never_shown_with_its_credentials(self):
        shown = f"{self.alice} {self.alice!r} {[self.alice]} {self.alice:}"

        assert "alice" not in shown
        assert "sesame" not in shown

    @pytest.mark.parametrize(
        ("scheme", "remote"),
        [
            ("socks4", False),
            ("socks5", False),
            ("socks4a", True),
            ("socks5h", True),
            ("http", True),
        ],
    )
    def test_its_scheme_says_who_resolves_names(self, scheme, remote):
        assert Proxy(scheme).remote_dns == remote


class TestFromEnviron:
    @pytest.mark.parametrize(
        ("environ", "url"),
        [
            ({}, None),
            ({"all_proxy": ""}, None),
            ({"all_proxy": "socks5h://a"}, "socks5h://a"),
            ({"ALL_PROXY": " socks://a "}, "socks5h://a"),
            ({"all_proxy": "http://a", "ALL_PROXY": "http://b"}, "http://a"),
            ({"all_proxy": "", "ALL_PROXY": "http://b"}, "http://b"),
            ({"socks_proxy": "socks5://a", "all_proxy": "http://b"}, "socks5://a"),
            ({"SOCKS_PROXY": "socks4://a", "all_proxy": "http://b"}, "socks4://a"),
            ({"socks_proxy": "a:9"}, "socks5h://a:9"),
            ({"all_proxy": "a:9"}, "http://a:9"),
            ({"all_proxy": "u:p@a:9"}, "http://u:p@a:9"),
            ({"http_proxy": "http://a"}, None),
        ],
    )
    def test_without_a_scheme_reads_socks_proxy_and_all_proxy(self, environ, url):
        expected = None if url is None else Proxy.from_url(url)

        assert Proxy.from_environ(environ=environ) == expected

    @pytest.mark.parametrize(
        ("scheme", "environ", "host"),
        [
            ("https", {"https_proxy": "http://a", "all_proxy": "http://b"}, "a"),
            ("HTTPS", {"HTTPS_PROXY": "http://a", "socks_proxy": "http://b"}, "a"),
            ("https", {"http_proxy": "http://a", "socks_proxy": "http://b"}, "b"),
            ("http", {"HTTP_PROXY": "http://a"}, "a"),
            # in a CGI program that variable is the request header "Proxy"
            (
                "http",
                {"HTTP_PROXY": "http://a", "all_proxy": "http://b", "REQUEST_METHOD": "GET"},
                "b",
            ),
            ("http", {"http_proxy": "http://a", "REQUEST_METHOD": "GET"}, "a"),
        ],
    )
    def test_with_a_scheme_reads_its_own_variable_first(self, scheme, environ, host):
        assert Proxy.from_environ(scheme, environ=environ).host == host

    @pytest.mark.parametrize(
        ("no_proxy", "host", "port", "direct"),
        [
            ({}, "example.com", 80, False),
            ({"no_proxy": "example.com"}, "www.example.com", 80, True),
            ({"no_proxy": "example.com"}, None, None, False),
            ({"NO_PROXY": "example.com"}, "example.com", 80, True),
            ({"no_proxy": "", "NO_PROXY": "example.com"}, "example.com", 80, True),
            ({"no_proxy": "example.org", "NO_PROXY": "example.com"}, "example.com", 80, False),
            ({"no_proxy": "example.com:8080"}, "example.com", 80, False),
            ({"no_proxy": "example.com:8080"}, "example.com", None, False),
            ({"no_proxy": "10.0.0.0/8"}, b"10.1.2.3", 80, True),
            ({"no_proxy": "::1"}, "[::1]", 80, True),
            ({"no_proxy": "*"}, "example.com", 80, True),
            ({"no_proxy": "xn--bcher-kva.example"}, "bücher.example", 80, True),
            ({"no_proxy": "<local>,example.com"}, "example.com", 80, True),
        ],
    )
    def test_no_proxy_decides_for_a_host(self, no_proxy, host, port, direct):
        environ = {"all_proxy": "socks5h://a", **no_proxy}

        assert (Proxy.from_environ("https", host, port, environ=environ) is None) == direct

    def test_a_wrong_value_names_its_variable_and_no_credential(self):
        with pytest.raises(InvalidProxyError, match=r"^ALL_PROXY: ") as caught:
            Proxy.from_environ(environ={"ALL_PROXY": "alice:sesame@a:b"})

        assert "alice" not in str(caught.value)
        assert "sesame" not in str(caught.value)

    def test_the_error_of_a_wrong_value_keeps_no_frame_that_holds_it(self, monkeypatch):
        """Error trackers print the variables of every frame: nobody but us had the value."""
        monkeypatch.setenv("all_proxy", "socks5h://alice:sesame@a:b")
        with pytest.raises(InvalidProxyError) as caught:
            Proxy.from_environ()

        assert (caught.value.__cause__, caught.value.__context__) == (None, None)
        shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
        ours = [frame for frame in shown.stack if frame.filename != __file__]
        assert ours
        assert "sesame" not in str([frame.locals for frame in ours])

    @pytest.mark.parametrize("environ", [{}, {"no_proxy": "x"}])
    def test_a_wrong_host_is_an_error_with_and_without_no_proxy(self, environ):
        with pytest.raises(InvalidTargetError):
            Proxy.from_environ("https", "a b", environ=environ)

    def test_is_no_chooser_itself_and_says_how_to_make_one(self):
        """With a host as the scheme and a port as the host it would ignore no_proxy."""
        with pytest.raises(TypeError, match="lambda host, port"):
            choose(Proxy.from_environ, "example.com", 80)

    def test_reads_the_real_environment(self, monkeypatch):
        for name in ("socks_proxy", "SOCKS_PROXY", "ALL_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("all_proxy", "socks5h://a")

        assert Proxy.from_environ() == Proxy("socks5h", "a")


NEAR, FAR = Proxy("socks5h", "near"), Proxy("socks5h", "far")


class TestAsRoute:
    @pytest.mark.parametrize(
        ("proxy", "route"),
        [
            (None, None),
            (NEAR, (NEAR,)),
            ("socks5h://near", (NEAR,)),
            ([NEAR, "socks5h://far"], (NEAR, FAR)),
            ((NEAR,), (NEAR,)),
            ([Proxy("http", path="/run/x"), NEAR], (Proxy("http", path="/run/x"), NEAR)),
        ],
    )
    def test_makes_a_chain_of_what_was_given(self, proxy, route):
        assert as_route(proxy) == route

    def test_leaves_a_callable_as_it_is(self):
        def chooser(host, port):
            return NEAR

        assert as_route(chooser) is chooser

    @pytest.mark.parametrize(
        "proxy",
        [
            "",
            "near",
            [],
            (),
            [NEAR, Proxy("http", path="/run/x")],
            [NEAR, "socks5h://[fe80::1%25lo]:1080"],
        ],
    )
    def test_refuses_what_is_no_chain(self, proxy):
        with pytest.raises(InvalidProxyError):
            as_route(proxy)

    @pytest.mark.parametrize("proxy", [8080, b"socks5h://near", {"near"}, [None], [[NEAR]]])
    def test_refuses_other_types(self, proxy):
        with pytest.raises(TypeError, match="a proxy is a URL"):
            as_route(proxy)


class TestChoose:
    @pytest.mark.parametrize("route", [None, (NEAR,), (NEAR, FAR)])
    def test_a_chain_is_for_every_target(self, route):
        assert choose(route, "example.com", 80) == route

    @pytest.mark.parametrize(
        ("answer", "chain"),
        [(None, None), (NEAR, (NEAR,)), ("socks5h://near", (NEAR,)), ([NEAR, FAR], (NEAR, FAR))],
    )
    def test_a_callable_is_asked_for_each(self, mocker, answer, chain):
        chooser = mocker.Mock(return_value=answer)

        assert choose(chooser, "example.com", 80) == chain
        chooser.assert_called_once_with("example.com", 80)

    def test_a_callable_may_send_us_to_another(self):
        assert choose(lambda host, port: lambda host, port: NEAR, "example.com", 80) == (NEAR,)

    def test_but_not_for_ever(self):
        def chooser(host, port):
            return chooser

        with pytest.raises(InvalidProxyError, match="callables"):
            choose(chooser, "example.com", 80)

    def test_a_wrong_answer_is_an_error_not_a_direct_connection(self):
        with pytest.raises(InvalidProxyError):
            choose(lambda host, port: "DIRECT", "example.com", 80)
