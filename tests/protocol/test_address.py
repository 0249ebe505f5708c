"""Addresses as they travel."""

import ipaddress
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from socksy.errors import InvalidPortError, InvalidTargetError
from socksy.hosts import clean_target
from socksy.protocol.socks5 import address_length, pack_address, unpack_address

LABELS = st.text("abcXYZ019-_", min_size=1, max_size=20)
NAMES = st.lists(LABELS, min_size=1, max_size=9).map(".".join).filter(lambda name: "." in name)
IPV4 = st.ip_addresses(v=4).map(str)
IPV6 = (
    st.ip_addresses(v=6)
    .filter(lambda ip: ip.ipv4_mapped is None)
    .map(lambda ip: socket.inet_ntop(socket.AF_INET6, ip.packed))
)

# host, port, as they travel: ATYP, address, port
TABLE = [
    ("192.0.2.1", 80, b"\x01\xc0\x00\x02\x01\x00\x50"),
    ("255.255.255.255", 65535, b"\x01\xff\xff\xff\xff\xff\xff"),
    ("2001:db8::1", 80, b"\x04 \x01\r\xb8" + bytes(11) + b"\x01\x00\x50"),
    ("::", 0, b"\x04" + bytes(18)),
    ("example", 80, b"\x03\x07example\x00\x50"),
    ("a_b.example.", 80, b"\x03\x0ca_b.example.\x00\x50"),
    ("n" * 127, 80, b"\x03\x7f" + b"n" * 127 + b"\x00\x50"),
    ("n" * 128, 80, b"\x03\x80" + b"n" * 128 + b"\x00\x50"),  # trap 18
    ("n" * 255, 80, b"\x03\xff" + b"n" * 255 + b"\x00\x50"),
    ("", 0, b"\x03\x00\x00\x00"),
]


@pytest.mark.trap(18)
@pytest.mark.parametrize(("host", "port", "packed"), TABLE)
def test_an_address_is_packed_and_read_again(host, port, packed):
    assert pack_address(host, port) == packed
    assert address_length(packed[0], packed[1]) == len(packed) - 1
    assert unpack_address(packed[0], packed[1:]) == (host, port)


@settings(deadline=None)
@given(NAMES | IPV4 | IPV6, st.integers(0, 65535))
def test_any_address_comes_back(host, port):
    packed = pack_address(host, port)

    assert address_length(packed[0], packed[1]) == len(packed) - 1
    assert unpack_address(packed[0], packed[1:]) == (host, port)


@pytest.mark.trap(22)
def test_any_address_is_all_zeros():
    """Never the name "0"."""
    assert pack_address("0.0.0.0", 0) == b"\x01\x00\x00\x00\x00\x00\x00"


@pytest.mark.trap(23)
@pytest.mark.parametrize("host", ["::ffff:192.0.2.1", "::FFFF:C000:201", "0:0::ffff:c000:0201"])
def test_an_ipv4_mapped_address_goes_as_ipv4(host):
    assert pack_address(host, 80) == b"\x01\xc0\x00\x02\x01\x00\x50"


def test_an_ipv4_mapped_address_comes_as_ipv4():
    packed = bytes(10) + b"\xff\xff\xc0\x00\x02\x01\x00\x50"

    assert unpack_address(4, packed) == ("192.0.2.1", 80)


@pytest.mark.trap(21)
@pytest.mark.parametrize("name", ["127.1", "1", "0x7f.0.0.1", "010.0.0.1", "1.2.3.256", "1.2.3.4."])
def test_only_a_dotted_quad_is_an_ipv4_address(name):
    assert pack_address(name, 80)[0] == 3


@pytest.mark.parametrize("atyp", [0, 2, 5, 0xFF])
def test_an_unknown_address_type_has_no_length(atyp):
    assert address_length(atyp, 4) is None


@settings(deadline=None)
@given(st.sampled_from([1, 3, 4]), st.binary(min_size=1, max_size=300))
def test_any_bytes_are_some_address(atyp, data):
    length = address_length(atyp, data[0])
    if len(data) >= length:
        host, port = unpack_address(atyp, data[:length])

        assert isinstance(host, str)
        assert 0 <= port <= 65535


# What may be asked of a proxy


@pytest.mark.parametrize(
    ("host", "port", "target"),
    [
        ("example.com", 80, ("example.com", 80)),
        ("[2001:db8::1]", 80, ("2001:db8::1", 80)),
        (b"example.com", 1, ("example.com", 1)),
        (ipaddress.ip_address("192.0.2.1"), 65535, ("192.0.2.1", 65535)),
        ("b\xfccher.example", 80, ("xn--bcher-kva.example", 80)),
        ("example.com", True, ("example.com", 1)),
        ("example.com", socket.IPPROTO_TCP, ("example.com", 6)),
    ],
)
def test_a_target_is_cleaned(host, port, target):
    assert clean_target(host, port) == target


@pytest.mark.trap(17)
@pytest.mark.parametrize(
    ("length", "fits"), [(127, True), (128, True), (255, True), (256, False), (365, False)]
)
def test_a_name_that_is_too_long_is_refused(length, fits):
    """It is neither looked up here instead, nor cut, nor sent with a length that lies."""
    host = "n" * length
    if fits:
        assert clean_target(host, 80) == (host, 80)
    else:
        with pytest.raises(InvalidTargetError, match=f"{length} bytes"):
            clean_target(host, 80)


@pytest.mark.trap(20)
@pytest.mark.parametrize("byte", ["\0", "\r", "\n", " ", "/", ":", "@", "\x7f"])
def test_a_name_cannot_end_its_field_early(byte):
    with pytest.raises(InvalidTargetError):
        clean_target(f"example{byte}com", 80)


@pytest.mark.parametrize("host", ["fe80::1%eth0", "[fe80::1%1]", "fe80::1%25eth0"])
def test_an_address_with_a_zone_is_refused(host):
    with pytest.raises(InvalidTargetError, match="zone"):
        clean_target(host, 80)


@pytest.mark.parametrize("port", [-1, 0, 65536, 2**64])
def test_a_port_out_of_range_is_refused_as_a_socket_does(port):
    with pytest.raises(OverflowError):
        clean_target("example", port)
    with pytest.raises(InvalidPortError, match="from 1 to 65535"):
        clean_target("example", port)


def test_port_0_may_be_allowed():
    assert clean_target("example", 0, lowest_port=0) == ("example", 0)


@pytest.mark.parametrize("port", ["80", b"80", None, 80.0])
def test_a_port_is_an_integer(port):
    with pytest.raises(TypeError):
        clean_target("example", port)


@pytest.mark.parametrize("host", [None, 80, ["example"], memoryview(b"example")])
def test_a_host_is_text_or_an_address(host):
    with pytest.raises(TypeError):
        clean_target(host, 80)
