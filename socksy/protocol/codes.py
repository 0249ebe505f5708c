"""The numbers of SOCKS, each with the section that defines it."""

from enum import IntEnum


class Command(IntEnum):
    """RFC 1928, section 4, and SOCKS4.protocol; RESOLVE and RESOLVE_PTR: Tor's socks-extensions."""

    CONNECT = 1
    BIND = 2
    UDP_ASSOCIATE = 3
    RESOLVE = 0xF0
    RESOLVE_PTR = 0xF1


class Method(IntEnum):
    """RFC 1928, section 3."""

    NO_AUTHENTICATION = 0x00
    GSSAPI = 0x01
    USERNAME_PASSWORD = 0x02
    NO_ACCEPTABLE = 0xFF


class AddressType(IntEnum):
    """RFC 1928, section 5."""

    IPV4 = 1
    DOMAINNAME = 3
    IPV6 = 4


class Reply(IntEnum):
    """SOCKS5 REP: RFC 1928, section 6. `errors` knows what each of them means."""

    SUCCEEDED = 0
    GENERAL_FAILURE = 1
    NOT_ALLOWED = 2
    NETWORK_UNREACHABLE = 3
    HOST_UNREACHABLE = 4
    CONNECTION_REFUSED = 5
    TTL_EXPIRED = 6
    COMMAND_NOT_SUPPORTED = 7
    ADDRESS_TYPE_NOT_SUPPORTED = 8


class Socks4Reply(IntEnum):
    """SOCKS4 CD: SOCKS4.protocol, "CONNECT"."""

    GRANTED = 0x5A
    REJECTED = 0x5B
    NO_IDENTD = 0x5C
    IDENTD_MISMATCH = 0x5D
