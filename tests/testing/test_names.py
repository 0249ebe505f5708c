"""The embedded proxy's resolver."""

import socket

import pytest

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


def test_other_names_are_unknown(no_local_lookup):
    with pytest.raises(socket.gaierror):
        Names({"www.test": "192.0.2.1"}).endpoints("other.test", 80)


def test_other_names_are_looked_up_if_told_so(dns_recorder):
    with pytest.raises(socket.gaierror):
        Names(None, real_lookups=True).endpoints("does-not-exist.invalid", 80)
    assert dns_recorder.names == ["does-not-exist.invalid"]


def test_the_name_of_an_address():
    names = Names({"192.0.2.1": "127.0.0.1", "www.test": ["192.0.2.2", "127.0.0.1"]})
    assert names.name_of("127.0.0.1") == "www.test"


def test_an_address_without_a_name():
    with pytest.raises(socket.gaierror):
        Names({"www.test": "192.0.2.2"}).name_of("192.0.2.1")


def test_the_real_name_of_an_address(dns_recorder):
    with pytest.raises(OSError, match=r"host|name|resolution"):
        Names(None, real_lookups=True).name_of("192.0.2.1")
    assert dns_recorder.names == ["192.0.2.1"]
