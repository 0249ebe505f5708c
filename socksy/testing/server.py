"""`SocksServer`: a real proxy on loopback, in threads of the test's own process."""

from __future__ import annotations

import errno
import hmac
import os
import socket
import stat
import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping
from time import monotonic
from typing import TYPE_CHECKING

from ..errors import InvalidArgumentError, reply_name
from ..hosts import clean_host
from ..names import unpatched
from ..protocol.codes import Command
from ..proxy import SOCKS4, SOCKS4A, SOCKS5H, Proxy, encode_login
from .faults import together
from .names import Names
from .relay import READ, Dropped, Lifeline
from .session import ServedRequest, Session, Settings

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

    from typing_extensions import Self

    from ..errors import ProxyError
    from ..hosts import Host
    from ..protocol.socks5 import Check
    from .faults import Fault, Faults
    from .names import Place

_EVERY_COMMAND = tuple(Command)
_PATIENCE = 5.0  # seconds for a thread to end; only a hanging name lookup takes longer


class SocksServer:
    """A proxy that speaks SOCKS4, 4a, 5 (with login) and HTTP CONNECT on one port.

    ::

        with SocksServer(names={"www.test": "127.0.0.1"}) as server:
            socksy.create_connection(("www.test", 80), proxy=server.url())
            assert server.requests[0].host == "www.test"

    It does CONNECT, BIND and UDP ASSOCIATE, over IPv4 and IPv6, and Tor's RESOLVE and RESOLVE_PTR.
    At the end of the block all its sockets and threads are gone.

    Args:
        host: the address to listen on.
        port: 0 for any free one.
        path: a Unix socket to listen on instead.
        users: user name to password; given, every client must log in (SOCKS4 then cannot). Or a
            function of both, as bytes, that says whether they may pass.
        names: what the proxy resolves: host (a name, or an address to be diverted) to an address,
            to an address and a port, or to several addresses. With a port (``"www.test:443"``) it
            is for that port alone.
        real_lookups: ask the system for other names; without it they are unreachable.
        commands: which are served; others are answered with "command not supported".
        faults: what goes wrong, see `socksy.testing.faults`; one or several.
        timeout: seconds a client may take for its handshake, a target to answer, and BIND's peer to
            come.
        max_connections: how many are served at once; further ones are closed.
        keep: how many requests, and how many errors, are on record, the newest; None for all. A
            server that runs for long wants a number.
        log: called with a line for each request and each refusal, never with credentials.

    Raises:
        InvalidArgumentError, TypeError: an argument is wrong.
    """

    def __init__(
        self,
        host: Host = "127.0.0.1",
        port: int = 0,
        *,
        path: str | os.PathLike[str] | None = None,
        users: Mapping[str, str] | Check | None = None,
        names: Mapping[str, Place] | None = None,
        real_lookups: bool = False,
        commands: Collection[int] = _EVERY_COMMAND,
        faults: Faults = (),
        timeout: float = 30.0,
        max_connections: int = 1000,
        keep: int | None = None,
        log: Callable[[str], None] | None = None,
    ) -> None:
        self._place: Any = _clean_place(host, port, path)
        self._users = users
        self._check = _checker(users)
        self._names = Names(names, real_lookups)
        self._commands = _numbers(commands)
        if not timeout > 0:
            raise InvalidArgumentError(f"a timeout is a number of seconds above 0, not {timeout}")
        self._timeout = timeout
        if max_connections < 1:
            raise InvalidArgumentError("max_connections: one at least")
        self._max_connections = max_connections
        if log is not None and not callable(log):
            raise TypeError(f"log is a function, not {type(log).__name__}")
        self._log = log
        self._fault = together(faults)
        self._changed = threading.Condition()
        self._requests: deque[ServedRequest] = deque(maxlen=keep)
        self._errors: deque[ProxyError] = deque(maxlen=keep)
        self._threads: set[threading.Thread] = set()
        self._count = 0
        self._listener: socket.socket | None = None
        self._address: Any = None

    # -- life

    def start(self) -> None:
        """Listen, and serve in the background.

        Raises:
            OSError: the address cannot be listened on.
        """
        if self._listener is not None:
            raise RuntimeError("this server is already running")
        self._listener = _listen(self._place)
        self._address = self._listener.getsockname()
        self._running = Lifeline()
        self._connections = Lifeline()
        self._acceptor = threading.Thread(
            target=self._accept_clients, args=(self._listener,), name="socksy-server", daemon=True
        )
        self._acceptor.start()

    def stop(self) -> None:
        """Close every connection and the port, and wait for the threads to end."""
        if self._listener is None:
            return
        self._running.cut()
        self._acceptor.join()
        self._running.close()
        self._listener.close()
        self._listener = None
        if isinstance(self._place, str):
            _unlink_socket(self._place)
        self.drop_connections()
        self._connections.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def drop_connections(self) -> None:
        """Close every connection there is now, in whatever state; new ones are welcome."""
        with self._changed:
            cut, self._connections = self._connections, Lifeline()
            threads = list(self._threads)
        cut.cut()
        for thread in threads:
            thread.join(_PATIENCE)
        cut.close()

    # -- where it is

    @property
    def address(self) -> Any:
        """What it listens on, or did: host and port, or the path of its Unix socket.

        Raises:
            RuntimeError: it was never started.
        """
        if self._address is None:
            raise RuntimeError("this server is not running: `with SocksServer(...) as server:`")
        return self._address if isinstance(self._address, str) else self._address[:2]

    @property
    def port(self) -> int:
        """The port it listens on, or did.

        Raises:
            RuntimeError: it was never started, or has none.
        """
        address = self.address
        if isinstance(address, str):
            raise RuntimeError("this server listens on a Unix socket, which has no port")
        return int(address[1])

    def proxy(self, scheme: str = SOCKS5H, **options: Any) -> Proxy:
        """This server as a `Proxy`, with the first of its users.

        Args:
            options: as for `Proxy`; ``username=None`` for no login.
        """
        address = self.address
        if isinstance(address, str):
            options.setdefault("path", address)
        else:
            options.setdefault("host", address[0])
            options.setdefault("port", address[1])
        if isinstance(self._users, Mapping) and scheme not in (SOCKS4, SOCKS4A):
            for username, password in list(self._users.items())[:1]:
                if "username" not in options:
                    options = {"username": username, "password": password, **options}
        return Proxy(scheme, **options)

    def url(self, scheme: str = SOCKS5H, **options: Any) -> str:
        """The same as a URL, with the password in clear."""
        return self.proxy(scheme, **options).to_url(with_credentials=True)

    def __repr__(self) -> str:
        where = "not running" if self._listener is None else self.address
        return f"<SocksServer {where}>"

    # -- what it was asked

    @property
    def requests(self) -> list[ServedRequest]:
        """All requests so far; one is here before its client knows the answer."""
        with self._changed:
            return list(self._requests)

    @property
    def errors(self) -> list[ProxyError]:
        """Why clients were turned away before they had asked: a wrong login, another protocol.

        One is here before its client knows, unless the client has gone.
        """
        with self._changed:
            return list(self._errors)

    @property
    def connections(self) -> int:
        """How many connections are open now."""
        with self._changed:
            return len(self._threads)

    def wait_for(
        self, count: int, timeout: float = 5.0, *, errors: bool = False
    ) -> list[ServedRequest]:
        """Wait until `count` requests (with `errors`, also refusals) are on record; return them.

        Raises:
            TimeoutError: there were fewer in so many seconds.
        """
        return self._wait_until(
            lambda: len(self._requests) + errors * len(self._errors) >= count,
            timeout,
            f"{count} requests",
        )

    def wait_until_idle(self, timeout: float = 5.0) -> list[ServedRequest]:
        """Wait until all connections have ended; return the requests so far.

        Raises:
            TimeoutError: some are still open after so many seconds.
        """
        return self._wait_until(lambda: not self._threads, timeout, "the last connection to end")

    def _wait_until(
        self, condition: Callable[[], bool], timeout: float, what: str
    ) -> list[ServedRequest]:
        deadline = monotonic() + timeout
        with self._changed:
            if not self._changed.wait_for(condition, timeout=max(0.0, deadline - monotonic())):
                raise TimeoutError(
                    f"waited {timeout} s for {what}; there were {self._requests}, {self._errors}, "
                    f"and {len(self._threads)} connections are open"
                )
            return list(self._requests)

    @property
    def faults(self) -> Fault:
        """What goes wrong; a change counts from the next connection on."""
        return self._fault

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._fault = together(faults)

    # -- threads

    def _accept_clients(self, listener: socket.socket) -> None:
        try:
            while True:
                self._running.wait((listener, READ))
                try:
                    client, _ = listener.accept()
                except BlockingIOError:
                    continue  # it has gone again
                except OSError:
                    # out of descriptors, most likely: no busy loop until some are free again
                    self._running.wait(deadline=monotonic() + 0.1)
                    continue
                self._begin(client)
        except Dropped:
            pass

    def _begin(self, client: socket.socket) -> None:
        with self._changed:
            if len(self._threads) >= self._max_connections:
                client.close()
                return
            self._count += 1
            settings = Settings(
                self._fault,
                self._check,
                self._names,
                self._commands,
                self._timeout,
                self._record,
                self._refuse,
            )
            session = Session(settings, client, self._count, self._connections)
            thread = threading.Thread(
                target=self._run, args=(session,), name=f"socksy-server-{self._count}", daemon=True
            )
            self._threads.add(thread)
            try:
                thread.start()
            except RuntimeError:  # no more threads to be had
                self._threads.remove(thread)
                client.close()

    def _run(self, session: Session) -> None:
        try:
            session.run()
        finally:
            with self._changed:
                self._threads.discard(threading.current_thread())
                self._changed.notify_all()

    def _record(self, request: ServedRequest) -> None:
        with self._changed:
            self._requests.append(request)
            self._changed.notify_all()
        if self._log is not None:
            self._log(_line(request))

    def _refuse(self, error: ProxyError) -> None:
        # A traceback keeps frames, and those what the client has said: its password, for one.
        error.with_traceback(None)
        error.__cause__ = error.__context__ = None
        with self._changed:
            self._errors.append(error)
            self._changed.notify_all()
        if self._log is not None:
            self._log(f"refused: {error.strerror}")


def _clean_place(host: Host, port: int, path: str | os.PathLike[str] | None) -> Any:
    if path is not None:
        path = os.fsdecode(path)
        if not path or "\0" in path:  # for bind() that is a free name, which is no file
            raise InvalidArgumentError("the path of a Unix socket is not empty, and has no NUL")
        return path
    if not isinstance(port, int) or not 0 <= port < 65536:
        raise InvalidArgumentError(f"a port is a number from 0 to 65535, not {port!r}")
    return clean_host(host), port


def _numbers(commands: Collection[int]) -> frozenset[int]:
    numbers = frozenset(commands)
    if not all(isinstance(number, int) for number in numbers):
        raise TypeError("commands are of socksy.protocol.codes.Command, or numbers")
    return numbers


def _checker(users: Mapping[str, str] | Check | None) -> Check | None:
    if users is None or callable(users):
        return users
    if not isinstance(users, Mapping) or not all(
        isinstance(text, str) for user in users.items() for text in user
    ):
        raise TypeError("users are a mapping of names to passwords, or a function of both")
    passwords = {encode_login(name): encode_login(password) for name, password in users.items()}

    def check(username: bytes, password: bytes) -> bool:
        # the same work for a user that does not exist
        expected = passwords.get(username, b"")
        return hmac.compare_digest(expected, password) and username in passwords

    return check


def _listen(place: Any) -> socket.socket:
    if isinstance(place, str):
        family = socket.AF_UNIX
    else:
        family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
    listener = unpatched(socket.socket, family, socket.SOCK_STREAM)
    try:
        if family == socket.AF_UNIX:
            _clear_away(place)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen(512)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _clear_away(path: str) -> None:
    """Remove the socket of a server that was killed; one that is alive stays, and bind() fails."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        if probe.connect_ex(path) == errno.ECONNREFUSED:
            _unlink_socket(path)


def _unlink_socket(path: str) -> None:
    try:
        if stat.S_ISSOCK(os.stat(path).st_mode):
            os.unlink(path)
    except OSError:
        pass


def _line(request: ServedRequest) -> str:
    client = "{}:{}".format(*request.client) if request.client else "unix"
    command = request.command
    name = command.name if isinstance(command, Command) else f"command {command:#04x}"
    # a name is whatever bytes the client sent
    target = request.host if request.host.isprintable() else ascii(request.host)
    if ":" in target:
        target = f"[{target}]"
    outcome = "succeeded" if request.succeeded else reply_name("SOCKS5", request.code)
    return f"{client} {request.protocol} {name} {target}:{request.port} -> {outcome}"
