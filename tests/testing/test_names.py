"""The embedded proxy's resolver."""

import socket

import pytest

from socksy.errors import InvalidArgumentError
from socksy.testing.names import Names

AF_INET, AF_INET6 = int(socket.AF_INET), int(socket.AF_INET6)


@pytest.mark.parametrize(
    ("place", "endpoints"),
    [
        ("192.0.2.1", [(AF_INET, ("192.0.2.1", 80))]),
        ("2001:db8::1", [(AF_INET6, ("2001:db8::1", 80))]),
        (("192.0.2.1", 8080), [(AF_INET, ("192.0.2.1", 8080))]),
        (
            ["2001:db8::1", "192.0.2.1"],
            [(AF_INET6, ("2001:db8::1", 80)), (AF_INET, ("192.0.2.1", 80))],
        ),
    ],
    ids=str,
)
def test_the_table(place, endpoints):
    assert Names({"www.test": place}).endpoints("www.test", 80) == endpoints


@pytest.mark.parametrize("spelling", ["WWW.Test", "www.test."])
def test_case_and_the_final_dot_do_not_matter(spelling):
    assert Names({"www.test": "192.0.2.1"}).endpoints(spelling, 80)


def test_an_address_is_where_it_is():
    assert Names(None).endpoints("192.0.2.1", 80) == [(AF_INET, ("192.0.2.1", 80))]


def test_an_address_can_be_diverted():
    names = Names({"192.0.2.1": ("127.0.0.1", 8080)})
    assert names.endpoints("192.0.2.1", 80) == [(AF_INET, ("127.0.0.1", 8080))]


@pytest.mark.parametrize(
    ("key", "host"), [("www.test:80", "www.test"), ("[2001:db8::1]:80", "2001:db8::1")]
)
def test_one_port_can_be_elsewhere(key, host):
    """The others are where the host is."""
    names = Names({key: ("127.0.0.1", 8080), host: "192.0.2.1"})
    assert names.endpoints(host, 80) == [(AF_INET, ("127.0.0.1", 8080))]
    assert names.endpoints(host, 81) == [(AF_INET, ("192.0.2.1", 81))]


def test_an_ipv4_mapped_address_is_ipv4():
    assert Names(None).endpoints("::ffff:192.0.2.1", 80) == [(AF_INET, ("192.0.2.1", 80))]


@pytest.fixture
def no_resolver(monkeypatch):
    """The system's is not even there."""
    monkeypatch.delattr(socket, "getaddrinfo")
    monkeypatch.delattr(socket, "gethostbyaddr")


def test_other_names_are_unknown(no_resolver):
    with pytest.raises(socket.gaierror):
        Names({"www.test": "192.0.2.1"}).endpoints("other.test", 80)


def test_other_names_are_looked_up_if_told_so(monkeypatch):
    def system(host, port, **options):
        assert (host, port) == (b"www.test", 80)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 80))]

    monkeypatch.setattr(socket, "getaddrinfo", system)
    names = Names(None, real_lookups=True)
    assert names.endpoints("www.test", 80) == [(AF_INET, ("192.0.2.1", 80))]


def test_onion_names_are_not(no_resolver):
    with pytest.raises(socket.gaierror):
        Names(None, real_lookups=True).endpoints("abc.onion", 80)


@pytest.mark.parametrize("host", ["127.0.0.1\0.evil", "::1%\0", "\0", "bücher.test", "::1%ö"])
def test_what_is_no_name_is_nowhere(host, no_resolver):
    """C functions stop reading at a NUL; what is not ASCII, clients have to send as A-labels."""
    with pytest.raises(socket.gaierror):
        Names(None, real_lookups=True).endpoints(host, 80)


def test_the_name_of_an_address():
    names = Names({"192.0.2.1": "127.0.0.1", "www.test": ["192.0.2.2", "127.0.0.1"]})
    assert names.name_of("127.0.0.1") == "www.test"


def test_an_address_without_a_name():
    with pytest.raises(socket.gaierror):
        Names({"www.test": "192.0.2.2"}).name_of("192.0.2.1")


def test_the_real_name_of_an_address(monkeypatch):
    def system(address):
        assert address == "192.0.2.1"
        return "www.test", [], [address]

    monkeypatch.setattr(socket, "gethostbyaddr", system)
    assert Names(None, real_lookups=True).name_of("192.0.2.1") == "www.test"


@pytest.mark.parametrize("address", ["", "www.test", "\0", "a" * 64, "192.0.2.1\0", "::1%lo"])
def test_only_an_address_has_a_name(address, no_resolver):
    with pytest.raises(socket.gaierror):
        Names(None, real_lookups=True).name_of(address)


@pytest.mark.parametrize(
    "ask",
    [
        lambda names: names.endpoints("does-not-exist.invalid", 80),
        lambda names: names.name_of("192.0.2.1"),
    ],
    ids=["by name", "by address"],
)
def test_what_the_proxy_looks_up_is_not_the_programs_doing(no_local_lookup, ask):
    """Which is what the fixtures and `watch_lookups` are about."""
    with pytest.raises(OSError, match=r"\d"):
        ask(Names(None, real_lookups=True))
    assert no_local_lookup.names == []


@pytest.mark.parametrize("key", ["bücher.test", "BÜCHER.test:80", "xn--bcher-kva.test"])
def test_international_names_are_what_clients_send(key):
    assert Names({key: "192.0.2.1"}).endpoints("xn--bcher-kva.test", 80)


@pytest.mark.parametrize("key", ["2001:DB8:0::1", "[2001:db8::1]", "[2001:db8::1]:80"])
def test_an_address_may_be_written_in_any_way(key):
    assert Names({key: ("127.0.0.1", 8080)}).endpoints("2001:db8::1", 80)[0][1][1] == 8080


@pytest.mark.parametrize(
    "key",
    ["", "a b", "www.test:", "www.test:http", "www.test:0", "www.test:70000", "[::1", "[::1]80"],
)
def test_a_name_that_cannot_be_asked_for_is_an_error(key):
    with pytest.raises(InvalidArgumentError, match=r"^names: ") as caught:
        Names({key: "192.0.2.1"})
    assert repr(key) in str(caught.value)


@pytest.mark.parametrize(
    "place",
    [
        "",
        "localhost",
        "127.0.0.1:80",
        "[::1]",
        [],
        ["127.0.0.1", "localhost"],
        ("127.0.0.1", 0),
        ("127.0.0.1", 65536),
        ("www.test", 80),
        ("127.0.0.1", "80"),
        80,
        None,
        b"127.0.0.1",
    ],
    ids=repr,
)
def test_a_place_that_is_no_address_is_an_error(place):
    with pytest.raises(InvalidArgumentError, match=r"'www\.test' is at an address"):
        Names({"www.test": place})


@pytest.mark.parametrize("table", [[("www.test", "192.0.2.1")], "www.test", {b"www.test": "::1"}])
def test_a_table_is_a_mapping_of_text(table):
    with pytest.raises(TypeError):
        Names(table)
