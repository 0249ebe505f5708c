"""The header of a UDP datagram, in and out."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from socksy.protocol.datagram import pack_header, parse_header

from .test_address import IPV4, IPV6, NAMES, TABLE


@pytest.mark.parametrize(("host", "port", "address"), TABLE)
@pytest.mark.parametrize("payload", [b"", b"query", b"\x00" * 300])
def test_a_header_is_made_and_read_again(host, port, address, payload):
    header = b"\x00\x00\x00" + address  # RSV, RSV, FRAG, ATYP ...

    assert pack_header(host, port) == header
    assert parse_header(header + payload) == (len(header), (host, port))
    assert parse_header(memoryview(header + payload)) == (len(header), (host, port))


@settings(deadline=None)
@given(NAMES | IPV4 | IPV6, st.integers(0, 65535), st.binary(max_size=300))
def test_any_datagram_comes_back(host, port, payload):
    datagram = pack_header(host, port) + payload
    begin, source = parse_header(datagram)

    assert (datagram[begin:], source) == (payload, (host, port))


@pytest.mark.trap(37)
@pytest.mark.parametrize(
    "datagram",
    [
        b"\x00\x00\x01\x01\xc0\x00\x02\x01\x00\x50query",  # a fragment
        b"\x00\x00\x80\x01\xc0\x00\x02\x01\x00\x50query",  # the last one
        b"\x00\x01\x00\x01\xc0\x00\x02\x01\x00\x50query",  # RSV
        b"\x01\x00\x00\x01\xc0\x00\x02\x01\x00\x50query",
        b"\x00\x00\x00\x00\xc0\x00\x02\x01\x00\x50query",  # ATYP
        b"\x00\x00\x00\x02\xc0\x00\x02\x01\x00\x50query",
    ],
)
def test_what_cannot_be_read_is_to_be_dropped(datagram):
    assert parse_header(datagram) is None


@pytest.mark.trap(37)
@pytest.mark.parametrize(("host", "port", "address"), TABLE)
def test_a_runt_is_to_be_dropped(host, port, address):
    header = pack_header(host, port)
    for length in range(len(header)):
        assert parse_header(header[:length]) is None


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_datagram_or_none(data):
    for datagram in (data, b"\x00\x00\x00" + data):
        parsed = parse_header(datagram)
        if parsed is not None:
            begin, (host, port) = parsed

            assert 7 <= begin <= len(datagram)
            assert isinstance(host, str)
            assert 0 <= port <= 65535
