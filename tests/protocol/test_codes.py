"""The numbers, as the standards have them."""

from socksy.errors import reply_error, reply_name
from socksy.protocol import http, socks4, socks5
from socksy.protocol.codes import AddressType, Command, Method, Reply, Socks4Reply


def test_numbers():
    assert {item.name: int(item) for item in Command} == {
        "CONNECT": 1,
        "BIND": 2,
        "UDP_ASSOCIATE": 3,
        "RESOLVE": 0xF0,
        "RESOLVE_PTR": 0xF1,
    }
    assert [int(item) for item in Method] == [0, 1, 2, 0xFF]
    assert [int(item) for item in AddressType] == [1, 3, 4]
    assert [int(item) for item in Reply] == list(range(9))
    assert [int(item) for item in Socks4Reply] == [0x5A, 0x5B, 0x5C, 0x5D]


def test_what_the_protocols_write_as_plain_numbers_is_the_same():
    """They do so because the enums take longer to import."""
    assert http._CONNECT == socks4._CONNECT == Command.CONNECT
    assert socks4._BIND == Command.BIND
    assert [socks4._GRANTED, socks4._REJECTED] == [Socks4Reply.GRANTED, Socks4Reply.REJECTED]
    assert list(AddressType) == [socks5._IPV4, socks5._NAME, socks5._IPV6]
    assert socks5._NO_AUTHENTICATION == Method.NO_AUTHENTICATION
    assert socks5._USERNAME_PASSWORD == Method.USERNAME_PASSWORD
    assert socks5._NO_ACCEPTABLE == Method.NO_ACCEPTABLE
    assert socks5._ADDRESS_TYPE_NOT_SUPPORTED == Reply.ADDRESS_TYPE_NOT_SUPPORTED


def test_every_reply_that_has_a_name_here_has_a_meaning_in_errors():
    for protocol, replies in [("SOCKS5", Reply), ("SOCKS4", Socks4Reply)]:
        for reply in list(replies)[1:]:
            assert "unknown" not in reply_name(protocol, reply)
            assert reply_error(protocol, reply).code == reply
