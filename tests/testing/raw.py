"""SOCKS spoken by hand, so that these tests do not depend on our own client."""

import socket
from contextlib import contextmanager

from ..support import read_exactly

NO_LOGIN = b"\5\1\0"
BANNER = b"220 ready\r\n"


@contextmanager
def connected(server):
    """A plain socket that is connected to the server, with a timeout."""
    family = socket.AF_UNIX if isinstance(server.address, str) else socket.AF_INET
    if ":" in server.address[0]:
        family = socket.AF_INET6
    with socket.socket(family) as sock:
        sock.settimeout(5)
        sock.connect(server.address)
        yield sock


def ip(address):
    """ATYP, address and port of SOCKS5."""
    host, port = address
    family, atyp = (socket.AF_INET6, b"\4") if ":" in host else (socket.AF_INET, b"\1")
    return atyp + socket.inet_pton(family, host) + port.to_bytes(2, "big")


def name(host, port):
    """The same for a name."""
    return b"\3" + bytes([len(host)]) + host.encode() + port.to_bytes(2, "big")


def greet(sock):
    """A SOCKS5 greeting without login."""
    sock.sendall(NO_LOGIN)
    assert read_exactly(sock, 2) == b"\5\0"


def ask5(sock, command, target):
    """A SOCKS5 greeting and request; the reply code."""
    greet(sock)
    sock.sendall(bytes([5, command, 0]) + target)
    return reply5(sock)[0]


def reply5(sock):
    """A whole SOCKS5 reply: its code, and the bound address."""
    version, code, reserved, atyp = read_exactly(sock, 4)
    assert (version, reserved) == (5, 0)
    if atyp == 3:
        host = read_exactly(sock, read_exactly(sock, 1)[0]).decode()
    else:
        family, length = {1: (socket.AF_INET, 4), 4: (socket.AF_INET6, 16)}[atyp]
        host = socket.inet_ntop(family, read_exactly(sock, length))
    return code, (host, int.from_bytes(read_exactly(sock, 2), "big"))


def ask4(sock, command, host, port, name=b"", user=b""):
    """A SOCKS4 or (with a name) 4a request; the code and the address of its reply."""
    request = bytes([4, command]) + port.to_bytes(2, "big") + socket.inet_aton(host) + user + b"\0"
    sock.sendall(request + (name + b"\0" if name else b""))
    return reply4(sock)


def reply4(sock):
    """A whole SOCKS4 reply: its code, and the address."""
    reply = read_exactly(sock, 8)
    assert reply[:1] == b"\0"
    return reply[1], (socket.inet_ntoa(reply[4:]), int.from_bytes(reply[2:4], "big"))


def everything(sock):
    """All that comes until the end of file."""
    return b"".join(iter(lambda: sock.recv(65536), b""))
