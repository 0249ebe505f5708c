"""multiprocessing passes a connection to another process, as it passes a plain socket."""

import pickle
import subprocess
import sys

import pytest

from socksy.sockets.stream import SocksSocket

from ..support import BANNER

# The receiver is another thread: with multiprocessing's own ways that makes no difference, and a
# process of its own would take a second.
PROGRAM = """
import multiprocessing, select, sys
import socksy
proxy, port, how = sys.argv[1:]

if __name__ == "__main__":
    here, there = multiprocessing.Pipe()
    target = ("127.0.0.1", int(port))
    sock = socksy.SocksSocket(proxy=(lambda host, port: proxy) if how == "chosen" else proxy)
    sock.settimeout(5)
    if how == "unconnected":
        here.send(sock)
        got = there.recv()
        got.settimeout(5)
        got.connect(target)
    else:
        if how == "pending":
            sock.setblocking(False)
            sock.connect_ex(target)
        else:
            sock.connect(target)
        here.send(sock)
        got = there.recv()
        got.settimeout(5)
    sock.close()
    assert got.recv(100) == b"220 ready\\r\\n"
    got.sendall(b"ping")
    assert got.recvfrom(100) == (b"ping", None)
    assert got.getpeername() == target, got.getpeername()
    assert isinstance(got, socksy.SocksSocket)
    assert str(got.proxy[0]) == proxy
    got.close()
"""


@pytest.mark.parametrize("how", ["connected", "chosen", "pending", "unconnected", "unix"])
def test_it_arrives_as_what_it_was(socks_server_factory, echo_server, tmp_path, how):
    server = socks_server_factory(**({"path": str(tmp_path / "s")} if how == "unix" else {}))
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, str(program), server.url(), str(echo_server[1]), how],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_remote_listener_stays(socks_server):
    from multiprocessing.reduction import ForkingPickler

    with SocksSocket(proxy=socks_server.url()) as listener:
        listener.settimeout(5)
        listener.bind_remote()
        with pytest.raises(TypeError, match="listens"):
            ForkingPickler.dumps(listener)


class Own(SocksSocket):
    """A program's own."""


def test_a_subclass_stays():
    """As with plain sockets: what it is made of is not known."""
    from multiprocessing.reduction import ForkingPickler

    with Own() as sock, pytest.raises(TypeError, match="pickle"):
        ForkingPickler.dumps(sock)


def test_others_cannot_pickle_it(socks_server, echo_server):
    with SocksSocket(proxy=socks_server.url()) as sock:
        sock.connect(echo_server)
        with pytest.raises(TypeError, match="pickle"):
            pickle.dumps(sock)
        assert sock.recv(100) == BANNER
