"""What may be a host, and as what it is sent."""

import ipaddress
import pickle
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from socksy.errors import InvalidTargetError, ProxyUnsupportedError
from socksy.hosts import (
    clean_host,
    is_localhost,
    is_onion,
    pack_ip,
    parse_port,
    refuse_onion,
    to_ascii,
    unpack_ip,
)


@pytest.mark.trap(19)
@pytest.mark.parametrize(
    "name",
    [
        "example.com",
        "EXAMPLE.com",
        "example.com.",
        "_dmarc.example.com",
        "a_b",
        "-a-.com",
        "a..b",
        "xn--",
        "127.1",
        "0x7f.1",
        "192.0.2.1",
        "2001:db8::1",
        "fe80::1%eth0",
        "n" * 255,
    ],
)
def test_ascii_passes_untouched(name):
    assert clean_host(name) == name
    assert clean_host(name.encode()) == name
    assert clean_host(bytearray(name.encode())) == name


@pytest.mark.parametrize(
    ("host", "text"),
    [
        ("[2001:db8::1]", "2001:db8::1"),
        ("[fe80::1%eth0]", "fe80::1%eth0"),
        (b"[::1]", "::1"),
        (ipaddress.ip_address("192.0.2.1"), "192.0.2.1"),
        (ipaddress.ip_address("fe80::1%1"), "fe80::1%1"),
    ],
)
def test_addresses_come_in_several_forms(host, text):
    assert clean_host(host) == text


@pytest.mark.trap(19)
@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("faß.de", "xn--fa-hia.de"),  # the 2003 codec says fass.de, another host
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("bücher.example.", "xn--bcher-kva.example."),
        ("_sip.my_host.bücher.example", "_sip.my_host.xn--bcher-kva.example"),
        ("XN--BCHER-KVA.ä", "xn--bcher-kva.xn--4ca"),
        ("b\u00adücher.example", "xn--bcher-kva.example"),  # a soft hyphen is nothing
        ("bu\u0308cher.example", "xn--bcher-kva.example"),  # u and its dots apart
        ("bücher。example", "xn--bcher-kva.example"),  # an ideographic full stop
        ("ｅｘａｍｐｌｅ．com", "example.com"),  # full width
        ("１２７．0．0．1", "127.0.0.1"),
        ("\u212a.example", "k.example"),  # the sign for kelvin
        ("пример.испытание", "xn--e1afmkfd.xn--80akhbyknj4f"),
    ],
)
def test_other_names_become_a_labels_by_uts_46(name, sent):
    assert clean_host(name) == sent
    assert clean_host(name.encode()) == sent
    assert to_ascii(name) == sent


@pytest.mark.trap(19)
@pytest.mark.parametrize(
    "name",
    [
        "☃.example",  # IDNA 2008 has no symbols
        "a\u200db.example",  # a joiner where nothing is joined
        "ä_b.example",
        "-ä.example",
        "ä-.example",
        "١٢٧.0.0.1",  # Arabic digits
        "ä" * 64,
        "ä." * 120,
        "ä" * 256,
        "\ud800.example",
        "ä\0",
        b"\xff",
        b"\xed\xa0\x80",  # half a surrogate pair
    ],
)
def test_what_is_no_international_name_is_one_error_of_ours(name):
    with pytest.raises(InvalidTargetError) as caught:
        clean_host(name)

    assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args


@pytest.mark.parametrize("name", ["\uff0f", "a\uff20b", "a\uff1a80", "℀.com", "\uff05"])
def test_what_only_mapping_reveals_is_refused_too(name):
    """Full width /, @, : and %, and the sign for a/c."""
    with pytest.raises(InvalidTargetError):
        clean_host(name)


@pytest.mark.trap(20)
@pytest.mark.parametrize("character", [*map(chr, range(0x21)), *'"#%/:<>?@[\\]^`{|}\x7f'])
@pytest.mark.parametrize("template", ["{}", "a{}", "{}a", "a{}b", "ä{}b"])
def test_no_host_has_such_characters(template, character):
    with pytest.raises(InvalidTargetError):
        clean_host(template.format(character))


@pytest.mark.trap(17)
@pytest.mark.parametrize("length", [256, 365, 70000])
def test_a_name_that_is_too_long_says_how_long(length):
    with pytest.raises(InvalidTargetError, match=f"has {length} bytes"):
        clean_host("n" * length)


@pytest.mark.parametrize(
    "host",
    ["", b"", "[]", "[example]", "[192.0.2.1]", "[::1", "::1]", "[[::1]]", "[::1]]", "\u00ad"],
)
def test_nothing_and_misplaced_brackets_are_no_host(host):
    with pytest.raises(InvalidTargetError):
        clean_host(host)


@pytest.mark.parametrize(
    "host",
    [
        "example.com:80",
        "1:2",
        ":::",
        "::1%",
        "::1%a%b",
        "::1%a b",
        "fe80::1%[",
        "::12345",
        "1::2::3",
        "::1.2.3.400",
    ],
)
def test_what_has_a_colon_must_be_ipv6(host):
    with pytest.raises(InvalidTargetError, match="IPv6"):
        clean_host(host)


def test_an_ipv4_address_has_no_zone():
    with pytest.raises(InvalidTargetError, match="'%'"):
        clean_host("169.254.0.1%eth0")


@pytest.mark.parametrize("host", [None, 1, 1.5, ["a"], ipaddress.ip_network("192.0.2.0/24")])
def test_a_host_of_another_type_is_a_type_error(host):
    with pytest.raises(TypeError, match=type(host).__name__):
        clean_host(host)


@settings(deadline=None)
@given(st.text(max_size=70) | st.binary(max_size=70))
@example("\udcff")
@example("xn--\u00e4")
def test_any_text_is_a_host_or_an_error_of_ours(text):
    """What comes out can be sent, and stays what it is."""
    try:
        host = clean_host(text)
    except InvalidTargetError:
        return

    assert 0 < len(host.encode("ascii")) <= 255
    assert not set(host) & set("\0\r\n\t /@[]")
    assert clean_host(host) == host


# Address literals


@pytest.mark.parametrize(
    ("text", "packed"),
    [
        ("192.0.2.1", b"\xc0\x00\x02\x01"),
        ("0.0.0.0", bytes(4)),
        ("::", bytes(16)),
        ("2001:DB8::1", b" \x01\r\xb8" + bytes(11) + b"\x01"),
        ("64:ff9b::192.0.2.1", b"\x00\x64\xff\x9b" + bytes(8) + b"\xc0\x00\x02\x01"),
        ("::ffff:192.0.2.1", b"\xc0\x00\x02\x01"),  # trap 23
        ("::192.0.2.1", bytes(12) + b"\xc0\x00\x02\x01"),
        ("fe80::1%eth0", b"\xfe\x80" + bytes(13) + b"\x01"),  # the zone is this machine's
    ],
)
def test_a_literal_is_packed(text, packed):
    assert pack_ip(text) == packed


@pytest.mark.trap(21)
@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "127.1",
        "1.2.3",
        "1.2.3.4.5",
        "1.2.3.4.",
        "1.2.3.256",
        "1.2.3.-4",
        "1.2.3.+4",
        "1.2.3.04",
        "0x7f.0.0.1",
        "1.2.3.4\n",
        " 1.2.3.4",
        "1_0.2.3.4",
        "1..2.3",
        "١.2.3.4",
        "1.2.3." + "4" * 5000,
        "example.com",
        ":",
        "::g",
        "::1\0",
        "::1\ud800",
        "::1 ",
        "1.2.3.4:80",
    ],
)
def test_anything_else_is_a_name(text):
    assert pack_ip(text) is None


@settings(deadline=None)
@given(st.text("0123456789abcdefABCDEFg:.%", max_size=45) | st.ip_addresses().map(str))
def test_literals_are_those_of_ipaddress(text):
    try:
        address = ipaddress.ip_address(text.partition("%")[0] if ":" in text else text)
    except ValueError:
        assert pack_ip(text) is None
    else:
        assert pack_ip(text) == (getattr(address, "ipv4_mapped", None) or address).packed


@settings(deadline=None)
@given(st.ip_addresses())
def test_any_address_comes_back(address):
    text = unpack_ip(address.packed)
    expected = getattr(address, "ipv4_mapped", None) or address

    assert ipaddress.ip_address(text) == expected
    assert unpack_ip(pack_ip(str(address))) == text


@settings(deadline=None)
@given(st.binary(min_size=16, max_size=16).map(lambda data: bytes(10) + b"\xff\xff" + data[:4]))
def test_an_ipv4_mapped_address_is_the_ipv4_address(packed):
    assert unpack_ip(packed) == str(ipaddress.IPv4Address(packed[12:]))


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("0", 0),
        ("80", 80),
        ("00080", 80),
        ("65535", 65535),
        ("65536", None),
        ("000080", None),
        ("", None),
        ("-1", None),
        ("+1", None),
        ("1_0", None),
        (" 80", None),
        ("٨٠", None),
        ("²", None),
        ("http", None),
        ("9" * 5000, None),
    ],
)
def test_a_port_is_up_to_five_digits(text, port):
    assert parse_port(text) == port


@pytest.mark.parametrize(
    ("host", "onion"),
    [
        ("abc.onion", True),
        ("www.abc.ONION", True),
        ("abc.onion.", True),
        ("onion", True),
        ("onion.example", False),
        ("abconion", False),
        ("abc.onion.example", False),
        ("192.0.2.1", False),
    ],
)
def test_only_tor_knows_onions(host, onion):
    assert is_onion(host) == onion


@pytest.mark.parametrize(
    "host", ["abc.onion", b"ABC.onion.", bytearray(b"a.onion"), "abc。onion", "abc.ｏｎｉｏｎ"]
)
def test_a_lookup_of_an_onion_is_refused_in_every_form_of_a_host(host):
    with pytest.raises(ProxyUnsupportedError):
        refuse_onion(host)


@pytest.mark.parametrize("host", ["a.test", b"\xff", "bücher.test", "é" * 70 + ".onion", None, 7])
def test_any_other_lookup_is_not(host):
    """Nor of what can be no host: whoever would look it up says so."""
    refuse_onion(host)


def test_without_idna_only_ascii_will_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "idna", None)

    assert clean_host("a.test") == "a.test"
    with pytest.raises(InvalidTargetError, match="package idna"):
        clean_host("bücher.test")


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("localhost", True),
        ("LocalHost.", True),
        ("app.localhost", True),
        ("notlocalhost", False),
        ("localhost.test", False),
        ("127.0.0.1", False),
    ],
)
def test_names_of_this_machine(host, here):
    assert is_localhost(host) == here
