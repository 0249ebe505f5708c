"""Placeholders for names, and the resolver functions that hand them out."""

import _socket
import errno
import socket
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import pytest

import socksy
from socksy import names
from socksy.names import DIRECT, HERE, REMOTE, Resolver, is_unpatched, named, placeholder, unpatched
from socksy.testing import watch_lookups

from .support import service

NAMES = ["secret.test", "Secret2.Test", "under_score.test", "trailing.test.", "a.onion"]


@pytest.fixture
def remote(no_local_lookup):
    """Names are the proxy's; a local lookup fails the test."""
    return Resolver(lambda host, port: REMOTE)


def outcome(function, *arguments):
    """What came of a call, comparably."""
    try:
        return function(*arguments)
    except (OSError, TypeError, ValueError, OverflowError) as exc:
        return type(exc), exc.args


# -- placeholders


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_placeholder_stands_for_its_name(name, family):
    address = placeholder(name, family)

    socket.inet_pton(family, address)
    assert named(address) == name
    assert placeholder(name, family) == placeholder(name.upper(), family) == address


def test_placeholders_are_no_possible_destinations():
    import ipaddress

    v4 = ipaddress.ip_address(placeholder("range.test"))
    v6 = ipaddress.ip_address(placeholder("range.test", socket.AF_INET6))
    assert v4 in ipaddress.ip_network("240.0.0.0/4")
    assert v6 in ipaddress.ip_network("100::/64")
    assert named(f"::ffff:{v4}") == "range.test"


def test_threads_that_ask_at_once_get_one_placeholder():
    names = [f"n{number}.threads.test" for number in range(50)]
    with ThreadPoolExecutor(8) as pool:
        rounds = list(pool.map(lambda _: [placeholder(name) for name in names], range(40)))

    assert all(each == rounds[0] for each in rounds)
    assert [named(address) for address in rounds[0]] == names


@pytest.mark.parametrize("address", ["240.200.1.1", "255.255.255.254", "100::dead:beef", "100::"])
def test_a_placeholder_that_was_never_handed_out_is_refused(address):
    with pytest.raises(socksy.ProxyUnsupportedError) as caught:
        named(address)

    assert caught.value.errno == errno.EADDRNOTAVAIL


@pytest.mark.parametrize(
    "host", ["192.0.2.1", "255.255.255.255", "2001:db8::1", "a.test", None, b"x"]
)
def test_everything_else_stays_what_it_is(host):
    assert named(host) is host


# -- as the real ones

PLAIN_HOSTS = [
    "127.0.0.1",
    "::1",
    b"127.0.0.1",
    "127.1",
    "192.0.2.1",
    None,
    "localhost",
    b"localhost",
]
PORTS = [80, "80", "http", b"http", None, 0, "nosuchservice", 70000, 1.5]
HINTS = [
    (0, 0, 0, 0),
    (socket.AF_INET, socket.SOCK_STREAM, 0, 0),
    (socket.AF_INET6, socket.SOCK_DGRAM, 0, 0),
    (0, 0, socket.IPPROTO_TCP, 0),
    (0, socket.SOCK_STREAM, socket.IPPROTO_UDP, 0),
    (socket.AF_UNIX, 0, 0, 0),
    (0, socket.SOCK_STREAM, 0, socket.AI_PASSIVE),
    (0, socket.SOCK_STREAM, 0, socket.AI_CANONNAME),
    (0, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST),
    (0, socket.SOCK_STREAM, 0, socket.AI_NUMERICSERV),
]


@pytest.fixture
def loopback_direct():
    """As a patch without other rules decides."""
    return Resolver(lambda host, port: DIRECT if socksy.Bypass(LOOPBACK).matches(host) else REMOTE)


LOOPBACK = ("localhost", "127.0.0.0/8", "::1")


@pytest.mark.parametrize("host", PLAIN_HOSTS)
def test_getaddrinfo_answers_for_literals_and_localhost_as_the_real_one(loopback_direct, host):
    for port in PORTS:
        for hints in HINTS:
            arguments = (host, port, *hints)
            ours = outcome(loopback_direct.getaddrinfo, *arguments)
            assert ours == outcome(socket.getaddrinfo, *arguments), arguments


@pytest.mark.parametrize("port", PORTS)
def test_getaddrinfo_for_a_name_has_the_form_of_the_real_answer_for_an_address(remote, port):
    """Every combination of family, type, protocol and flags, errors included."""
    for hints in HINTS:
        if hints[3] == socket.AI_NUMERICHOST:
            continue
        family = socket.AF_INET6 if hints[0] == socket.AF_INET6 else socket.AF_INET
        stand_in = placeholder("form.test", family)
        expected = outcome(socket.getaddrinfo, stand_in, port, *hints)
        if hints[3] == socket.AI_CANONNAME and isinstance(expected, list):
            assert expected[0][3] == stand_in
            expected[0] = (*expected[0][:3], "form.test", expected[0][4])
        assert outcome(remote.getaddrinfo, "form.test", port, *hints) == expected, hints


def test_a_name_where_only_numbers_are_allowed_is_no_name(remote):
    with pytest.raises(socket.gaierror) as caught:
        remote.getaddrinfo("secret.test", 80, flags=socket.AI_NUMERICHOST)

    assert caught.value.errno == socket.EAI_NONAME


@pytest.mark.parametrize("name", ["secret.test", b"secret.test", bytearray(b"secret.test")])
def test_each_function_hands_out_the_same_placeholder(remote, name):
    address = placeholder("secret.test")

    assert remote.gethostbyname(name) == address
    assert remote.gethostbyname_ex(name) == ("secret.test", [], [address])
    assert remote.gethostbyaddr(name) == ("secret.test", [], [address])
    assert remote.gethostbyaddr(address) == ("secret.test", [], [address])
    assert remote.getaddrinfo(name, 80, type=socket.SOCK_STREAM)[0][4] == (address, 80)
    assert remote.getnameinfo((address, 80), 0) == ("secret.test", service(80))


def test_a_name_with_other_letters_is_the_one_that_browsers_ask_for(remote):
    assert named(remote.gethostbyname("faß.test")) == "xn--fa-hia.test"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "192.0.2.1", "", b"", "<broadcast>", "localhost"]
)
def test_gethostbyname_answers_for_what_is_no_name_as_the_real_one(loopback_direct, host):
    for name in ("gethostbyname", "gethostbyname_ex"):
        assert outcome(getattr(loopback_direct, name), host) == outcome(getattr(socket, name), host)


@pytest.mark.parametrize("host", ["two words", "a" * 300, 'quote"', "a b.test", "\udc80"])
def test_what_can_be_no_name_is_not_found_and_nobody_is_asked(remote, host):
    for function in (
        lambda h: remote.getaddrinfo(h, 80),
        remote.gethostbyname,
        remote.gethostbyaddr,
    ):
        with pytest.raises(socket.gaierror) as caught:
            function(host)
        assert caught.value.errno == socket.EAI_NONAME


@pytest.mark.parametrize("host", [5, 1.5, ("a.test",), object()])
def test_another_type_is_refused_as_by_the_real_functions(remote, host):
    for ours, real in (
        (lambda h: remote.getaddrinfo(h, 80), lambda h: socket.getaddrinfo(h, 80)),
        (remote.gethostbyname, socket.gethostbyname),
        (remote.gethostbyaddr, socket.gethostbyaddr),
        (lambda h: remote.getnameinfo(h, 0), lambda h: socket.getnameinfo(h, 0)),
    ):
        assert outcome(ours, host) == outcome(real, host)


@pytest.mark.parametrize(
    "flags",
    [0, socket.NI_NUMERICHOST, socket.NI_NUMERICSERV, socket.NI_DGRAM, socket.NI_NAMEREQD],
)
@pytest.mark.parametrize(
    "sockaddr", [("127.0.0.1", 53), ("127.0.0.1", 1), ("::1", 53, 0, 0), ("x", 1)]
)
def test_getnameinfo_of_loopback_is_the_real_one(loopback_direct, flags, sockaddr):
    ours = outcome(loopback_direct.getnameinfo, sockaddr, flags)
    real = outcome(socket.getnameinfo, sockaddr, flags)
    assert ours == real


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (0, ("192.0.2.7", service(53))),
        (socket.NI_NUMERICSERV, ("192.0.2.7", "53")),
        (socket.NI_NUMERICHOST, ("192.0.2.7", service(53))),
    ],
)
def test_getnameinfo_of_an_address_beyond_the_proxy_is_the_address(flags, expected):
    with watch_lookups() as lookups:
        assert Resolver(lambda host, port: REMOTE).getnameinfo(("192.0.2.7", 53), flags) == expected
    assert not lookups.names or flags & socket.NI_NUMERICHOST  # the hook cannot see the flag


def test_an_address_beyond_the_proxy_has_no_name(remote):
    with pytest.raises(socket.herror):
        remote.gethostbyaddr("192.0.2.7")
    with pytest.raises(socket.gaierror):
        remote.getnameinfo(("192.0.2.7", 53), socket.NI_NAMEREQD)


@pytest.mark.parametrize("who", [DIRECT, HERE, REMOTE])
@pytest.mark.trap(17)
def test_an_onion_name_is_never_looked_up_here(no_local_lookup, who):
    resolver = Resolver(lambda host, port: who)
    for name in ("abc.onion", "ABC.ONION.", b"abc.onion"):
        assert named(resolver.gethostbyname(name)).lower().rstrip(".") == "abc.onion"
        assert resolver.getaddrinfo(name, 80)[0][4][0].startswith("240.")
        assert resolver.gethostbyname_ex(name)[2][0].startswith("240.")
        assert resolver.gethostbyaddr(name)[2][0].startswith("240.")


@pytest.mark.parametrize("name", ["app.localhost", "localhost.", "LOCALHOST.", b"localhost."])
def test_localhost_and_the_names_below_it_are_looked_up_as_localhost(monkeypatch, name):
    """With a trailing dot, or a name before it, the system's resolver would ask others."""
    asked = []

    class Recorder:
        """The C module, as far as it takes names."""

        def __getattr__(self, function):
            real = getattr(_socket, function)
            return lambda host, *rest: asked.append(host) or real(host, *rest)

    direct = Resolver(lambda host, port: DIRECT)
    monkeypatch.setattr(names, "_socket", Recorder())

    assert direct.gethostbyname(name) == "127.0.0.1"
    assert direct.gethostbyname_ex(name)[2] == ["127.0.0.1"]
    assert direct.getaddrinfo(name, 80, socket.AF_INET)[0][4] == ("127.0.0.1", 80)
    assert set(asked) == {b"localhost"}


@pytest.mark.parametrize("literal", ["0x7f.1", b"0X7F000001", "0177.0x0.1"])
def test_an_address_in_an_odd_form_is_not_taken_for_a_name(monkeypatch, literal):
    """gethostbyname_ex of the C library knows digits and dots only, and asks for all else."""
    asked = []
    direct = Resolver(lambda host, port: asked.append(host) or DIRECT)
    monkeypatch.setattr(names._socket, "gethostbyname_ex", lambda host: (host, [], [host]))

    assert direct.gethostbyname(literal) == "127.0.0.1"
    assert direct.gethostbyname_ex(literal)[2] == ["127.0.0.1"]
    assert direct.gethostbyaddr(literal) == socket.gethostbyaddr("127.0.0.1")
    if isinstance(literal, str):
        assert direct.getnameinfo((literal, 80), 0) == socket.getnameinfo(("127.0.0.1", 80), 0)
    assert set(asked) == {"127.0.0.1"}


def test_it_compares_no_text_with_bytes(remote):
    """Under ``python -bb`` that is an error."""
    code = """
        from socksy.names import REMOTE, Resolver
        resolver = Resolver(lambda host, port: REMOTE)
        for host in ("", b"", b"<broadcast>"):
            resolver.gethostbyname(host)
        for host in ("a.test", b"a.test", "127.1", b"127.1"):
            resolver.gethostbyname_ex(host)
        resolver.gethostbyaddr(b"a.test")
        resolver.getaddrinfo(b"a.test", 80)
    """
    subprocess.run([sys.executable, "-bb", "-c", textwrap.dedent(code)], check=True)


def test_the_addresses_of_direct_names_are_remembered():
    direct = Resolver(lambda host, port: DIRECT)
    here = Resolver(lambda host, port: HERE)
    for resolver in (direct, here):
        resolver.gethostbyname("localhost")

    assert direct.direct_names("127.0.0.1") == {"localhost"}
    assert here.direct_names("127.0.0.1") == set()


@pytest.mark.parametrize("function", ["getaddrinfo", "gethostbyname", "gethostbyname_ex"])
def test_a_name_that_only_the_proxy_knows_may_be_looked_up_here_in_vain(function):
    """Whoever has written socks5:// is told what that means."""
    arguments = ("a" * 64, 80) if function == "getaddrinfo" else ("a" * 64,)
    for way, hint in ((HERE, True), (DIRECT, False)):
        resolver = Resolver(lambda host, port, way=way: way)
        with pytest.raises(socket.gaierror) as caught:
            getattr(resolver, function)(*arguments)
        assert caught.value.errno in (socket.EAI_NONAME, socket.EAI_FAIL)
        assert ("socks5h://" in str(caught.value)) is hint


def test_the_decision_is_told_the_port_where_there_is_one(no_local_lookup):
    asked = []
    resolver = Resolver(lambda host, port: asked.append((host, port)) or REMOTE)
    names = [service(80)] if service(80) != "80" else []  # bare systems have none
    for port in (80, "81", b"82", None, *names):
        resolver.getaddrinfo("a.test", port)
    resolver.gethostbyname("a.test")

    assert asked == [
        ("a.test", 80),
        ("a.test", 81),
        ("a.test", 82),
        *[("a.test", 0)] * len([None, *names, "gethostbyname"]),
    ]


def test_socksys_own_lookups_are_real_ones(dns_recorder):
    resolver = Resolver(lambda host, port: REMOTE)

    assert not is_unpatched()
    assert unpatched(resolver.gethostbyname, "localhost") == "127.0.0.1"
    assert unpatched(resolver.gethostbyname_ex, "localhost")[2] == ["127.0.0.1"]
    assert unpatched(resolver.gethostbyaddr, "127.0.0.1")
    assert unpatched(resolver.getnameinfo, ("127.0.0.1", 80), 0)
    assert unpatched(resolver.getaddrinfo, "localhost", 80, socket.AF_INET)[0][4][0] == "127.0.0.1"
    assert not is_unpatched()


@pytest.mark.parametrize("resolver", ["DIRECT", "HERE"])
def test_gethostbyaddr_of_what_is_looked_up_here_is_the_real_one(no_local_lookup, resolver):
    here = Resolver(lambda host, port: {"DIRECT": DIRECT, "HERE": HERE}[resolver])

    assert here.gethostbyaddr("localhost") == socket.gethostbyaddr("localhost")
    assert here.gethostbyaddr("127.0.0.1") == socket.gethostbyaddr("127.0.0.1")
    assert here.gethostbyaddr(b"127.0.0.1") == socket.gethostbyaddr("127.0.0.1")


def test_a_placeholder_of_nobody_has_no_name(remote):
    with pytest.raises(socket.herror):
        remote.gethostbyaddr("240.200.1.1")
    assert remote.getnameinfo(("240.200.1.1", 80), 0) == ("240.200.1.1", service(80))


def test_there_is_an_end_to_placeholders(monkeypatch):
    monkeypatch.setattr(names, "_LAST", 0)
    with pytest.raises(socket.gaierror) as caught:
        placeholder("one-too-many.test")

    assert caught.value.errno == socket.EAI_MEMORY
