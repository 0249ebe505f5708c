"""The numbers, as the standards have them."""

from socksy.errors import reply_error, reply_name
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


def test_every_reply_that_has_a_name_here_has_a_meaning_in_errors():
    for protocol, replies in [("SOCKS5", Reply), ("SOCKS4", Socks4Reply)]:
        for reply in list(replies)[1:]:
            assert "unknown" not in reply_name(protocol, reply)
            assert reply_error(protocol, reply).code == reply
