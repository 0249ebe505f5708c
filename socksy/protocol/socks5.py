"""SOCKS5, client and server side (RFC 1928), with its logins.

::

    greeting       VER=5 NMETHODS METHODS
    method choice  VER=5 METHOD
    request        VER=5 CMD RSV ATYP DST.ADDR DST.PORT
    reply          VER=5 REP RSV ATYP BND.ADDR BND.PORT
"""

from __future__ import annotations

from ..errors import ProxyAuthenticationError, ProxyProtocolError, reply_error
from ..hosts import pack_ip, unpack_ip
from ..proxy import Secret
from .steps import (
    LOGIN_ANSWER,
    METHOD_CHOICE,
    NOWHERE,
    REPLY,
    SECOND_REPLY,
    Step,
    unexpected,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..proxy import Proxy
    from .server import Request
    from .steps import Address, Exchange, Handshake, Prediction

    #: whether this user name and password may pass
    Check = Callable[[bytes, bytes], bool]

# As in `codes`, whose enums take longer to import than this whole module.
_NO_AUTHENTICATION, _USERNAME_PASSWORD, _NO_ACCEPTABLE = 0x00, 0x02, 0xFF
_IPV4, _NAME, _IPV6 = 1, 3, 4
_ADDRESS_TYPE_NOT_SUPPORTED = 8
# The shortest reply: an empty name as BND.ADDR. The first read asks for no more.
_SHORTEST_REPLY = 7

_GREETING = Step(b"\5\1\0", 2, METHOD_CHOICE)
_GREETING_WITH_LOGIN = Step(b"\5\2\0\2", 2, METHOD_CHOICE)
_GREETING_LOGIN_ONLY = Step(b"\5\1\2", 2, METHOD_CHOICE)
# What most servers reply, until where its length is known, and all of it if they tell no address.
_SUCCESS_WITH_IPV4 = b"\5\0\0\1"
_SUCCESS_NOWHERE = b"\5\0\0\1\0\0\0\0\0\0"
_BEGIN_NOWHERE = _SUCCESS_NOWHERE[:_SHORTEST_REPLY]
_REST_OF_IPV4 = Step(b"", 10 - _SHORTEST_REPLY, REPLY, already=_SHORTEST_REPLY)
_PREDICTED_CHOICE = b"\5\1\0", 2, b"\5\0", b"\5\0"
_PREDICTED_REST = b"", 10 - _SHORTEST_REPLY, bytes(10 - _SHORTEST_REPLY), b""


def handshake(
    command: int,
    host: str,
    port: int,
    login: tuple[Secret, Secret] | None = None,
    require_auth: bool = False,
    pipelined: bool = False,
    early_data: bytes = b"",
) -> Handshake[Address]:
    """Greet, log in if the server wants it, and ask for `command`.

    "No authentication" is always offered, a login only if there is one: servers differ in what they
    do with more. With `require_auth` the login is all that is offered.

    Args:
        pipelined: all of that in one message, which takes that one method is offered.
        early_data: the application's first bytes, right behind the request.
    """
    request = b"\5%c\0" % command + pack_address(host, port)
    if early_data:
        request = Secret(request + early_data)
    if pipelined:
        return _negotiate_at_once(request, login)
    return _negotiate(request, login, require_auth)


def _negotiate(
    request: bytes, login: tuple[Secret, Secret] | None, require_auth: bool
) -> Handshake[Address]:
    if login is None:
        choice = yield _GREETING
    else:
        choice = yield _GREETING_LOGIN_ONLY if require_auth else _GREETING_WITH_LOGIN
    if choice[0] != 5:
        raise unexpected(choice[0], "SOCKS5", METHOD_CHOICE)
    if choice[1] == _USERNAME_PASSWORD and login is not None:
        yield from username_password(*login)
    elif choice[1] != _NO_AUTHENTICATION or require_auth:
        raise _no_way_in(choice[1], login is not None, require_auth)
    answer = yield Step(request, _SHORTEST_REPLY, REPLY, 2)
    if len(answer) == _SHORTEST_REPLY and answer.startswith(_SUCCESS_WITH_IPV4):  # the usual case
        answer += yield _REST_OF_IPV4
        return NOWHERE if answer == _SUCCESS_NOWHERE else unpack_address(_IPV4, answer[4:])
    return (yield from _judge(answer, REPLY))


def predictor(proxy: Proxy) -> Callable[[str, int], Prediction]:
    """A CONNECT at a server that wants the login, if there is one, and agrees."""
    before: tuple[Exchange, ...] = (_PREDICTED_CHOICE,)
    if proxy.login is not None:
        greeting = _GREETING_LOGIN_ONLY if proxy.require_auth else _GREETING_WITH_LOGIN
        logging_in = _login_message(*proxy.login), 2, b"\1\0", b"\1\0"
        before = (greeting.send, 2, b"\5\2", b"\5\2"), logging_in

    def predict(host: str, port: int) -> Prediction:
        if host[-1:] > "9" and ":" not in host:  # as in pack_address, without a call
            name = host.encode("ascii")
            request = b"\5\1\0\3%c%b%c%c" % (len(name), name, port >> 8, port & 255)
        else:
            request = b"\5\1\0" + pack_address(host, port)
        asking = request, _SHORTEST_REPLY, _BEGIN_NOWHERE, _SUCCESS_WITH_IPV4
        return (*before, asking, _PREDICTED_REST), _conclude

    return predict


def _conclude(answers: list[bytes]) -> Address:
    return unpack_address(_IPV4, answers[-2][4:] + answers[-1])


def _negotiate_at_once(request: bytes, login: tuple[Secret, Secret] | None) -> Handshake[Address]:
    wanted, message = _NO_AUTHENTICATION, _GREETING.send + request
    if login is not None:
        wanted = _USERNAME_PASSWORD
        message = Secret(_GREETING_LOGIN_ONLY.send + _login_message(*login) + request)
    choice = yield Step(message, 2, METHOD_CHOICE)
    if choice[0] != 5:
        raise unexpected(choice[0], "SOCKS5", METHOD_CHOICE)
    if choice[1] != wanted:
        raise _no_way_in(choice[1], login is not None, login is not None)
    if login is not None:
        _judge_login((yield Step(b"", 2, LOGIN_ANSWER)))
    answer = yield Step(b"", _SHORTEST_REPLY, REPLY, 2)
    return (yield from _judge(answer, REPLY))


def _no_way_in(
    method: int, has_login: bool, require_auth: bool
) -> ProxyAuthenticationError | ProxyProtocolError:
    if method == _NO_ACCEPTABLE:
        if require_auth:
            hint = "It takes no user name and password; without require_auth it may let you in"
        elif has_login:
            hint = "It takes neither user name and password nor, maybe, any login at all"
        else:
            hint = "It probably wants a user name and password: socks5h://user:password@host"
        return ProxyAuthenticationError(
            message="the proxy accepts no authentication method we offer",
            phase=METHOD_CHOICE,
            hint=hint,
        )
    if method == _NO_AUTHENTICATION and require_auth:
        return ProxyAuthenticationError(
            message="the proxy picked no authentication although require_auth is set",
            phase=METHOD_CHOICE,
        )
    return ProxyProtocolError(
        message=f"the proxy picked authentication method {method:#04x}, which was not offered",
        phase=METHOD_CHOICE,
    )


def username_password(username: Secret, password: Secret) -> Handshake[None]:
    """RFC 1929. Both are at most 255 bytes, which `Proxy` has checked."""
    _judge_login((yield Step(_login_message(username, password), 2, LOGIN_ANSWER)))


def _login_message(username: Secret, password: Secret) -> Secret:
    return Secret(b"\1%c%b%c%b" % (len(username), username, len(password), password))


def _judge_login(answer: bytes) -> None:
    # VER is 1; servers that send 5 here are common, and Tor refuses with a request's reply
    if answer[0] not in (1, 5):
        raise unexpected(answer[0], "a login answer (RFC 1929)", LOGIN_ANSWER)
    if answer[1] != 0:
        raise ProxyAuthenticationError(
            message="the proxy refused the user name or password", phase=LOGIN_ANSWER
        )


def second_reply() -> Handshake[Address]:
    """The reply that comes when a peer has connected to the port that BIND opened."""
    answer = yield Step(b"", _SHORTEST_REPLY, SECOND_REPLY, 2)
    return (yield from _judge(answer, SECOND_REPLY))


def _judge(answer: bytes, awaiting: str) -> Handshake[Address]:
    """Read on in a reply of which at least two bytes have come."""
    if answer[0] != 5:
        raise unexpected(answer[0], "SOCKS5", awaiting)
    if answer[1] != 0:
        # Judged by two bytes: some servers send no more, and then do not even close.
        raise reply_error("SOCKS5", answer[1], awaiting)
    if len(answer) < _SHORTEST_REPLY:
        rest = _SHORTEST_REPLY - len(answer)
        answer += yield Step(b"", rest, awaiting, already=len(answer))
    atyp = answer[3]
    length = address_length(atyp, answer[4])
    if length is None:
        raise ProxyProtocolError(
            message=f"the reply has an unknown address type {atyp:#04x}", phase=awaiting
        )
    if 4 + length > _SHORTEST_REPLY:
        rest = 4 + length - _SHORTEST_REPLY
        answer += yield Step(b"", rest, awaiting, already=_SHORTEST_REPLY)
    return unpack_address(atyp, answer[4:])


def serve(head: bytes, check: Check | None = None) -> Handshake[Request]:
    """Read a client's greeting, login and request; `head` is its first two bytes.

    Args:
        check: whether a user name and password may pass; without it no login is wanted.
    """
    from .server import Request

    methods = yield Step(b"", head[1], "the methods")
    wanted = _NO_AUTHENTICATION if check is None else _USERNAME_PASSWORD
    if wanted not in methods:
        yield Step(b"\5\xff", 0, METHOD_CHOICE)
        raise ProxyProtocolError(message="the client offers no method that is accepted here")
    yield Step(bytes((5, wanted)), 0, METHOD_CHOICE)
    username = None
    if check is not None:
        username = yield from _serve_login(check)
    request = yield Step(b"", 5, "the request")
    if request[0] != 5:
        raise ProxyProtocolError(message="the client's request is not SOCKS5")
    length = address_length(request[3], request[4])
    if length is None:
        yield Step(reply(_ADDRESS_TYPE_NOT_SUPPORTED), 0, REPLY)
        raise ProxyProtocolError(message=f"the client sent address type {request[3]:#04x}")
    address = request[4:] + (yield Step(b"", length - 1, "the request"))
    host, port = unpack_address(request[3], address)
    return Request("SOCKS5", request[1], host, port, username=username)


def _serve_login(check: Check) -> Handshake[str]:
    head = yield Step(b"", 2, "the login")
    if head[0] != 1:
        yield Step(b"\1\1", 0, LOGIN_ANSWER)
        raise ProxyProtocolError(message="the client's login is not RFC 1929")
    rest = yield Step(b"", head[1] + 1, "the login")
    username, length = rest[:-1], rest[-1]
    password = yield Step(b"", length, "the login")
    if not check(username, password):
        yield Step(b"\1\1", 0, LOGIN_ANSWER)
        raise ProxyAuthenticationError(message="the client's user name or password is wrong")
    yield Step(b"\1\0", 0, LOGIN_ANSWER)
    return username.decode("utf-8", "replace")


def reply(code: int, host: str = "0.0.0.0", port: int = 0) -> bytes:
    """A reply with its bound address."""
    return b"\5%c\0" % code + pack_address(host, port)


# -- the address fields of requests, replies and datagrams (section 5)


def pack_address(host: str, port: int) -> bytes:
    """ATYP, DST.ADDR and DST.PORT of a clean host; an IPv4-mapped address goes as IPv4."""
    # a name mostly ends in a letter, and an address never does without a colon
    packed = None if host[-1:] > "9" and ":" not in host else pack_ip(host)
    if packed is None:
        name = host.encode("ascii")
        return bytes((_NAME, len(name))) + name + port.to_bytes(2, "big")
    atyp = b"\x01" if len(packed) == 4 else b"\x04"
    return atyp + packed + port.to_bytes(2, "big")


def address_length(atyp: int, first: int) -> int | None:
    """How many bytes address and port have, given ATYP and the byte behind it; None if unknown."""
    if atyp == _IPV4:
        return 6
    if atyp == _NAME:
        return 3 + first
    return 18 if atyp == _IPV6 else None


def unpack_address(atyp: int, data: bytes) -> Address:
    """Host and port from exactly `address_length` bytes. A name may be empty, or not ASCII."""
    port = data[-2] << 8 | data[-1]
    if atyp == _NAME:
        return data[1:-2].decode("utf-8", "backslashreplace"), port
    return unpack_ip(data[:-2]), port
