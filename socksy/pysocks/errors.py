"""PySocks' exceptions, as classes that are ours as well.

Whoever catches `socks.ProxyConnectionError` or `socksy.ProxyConnectionError`, or the builtin
`ConnectionError`, catches the same error: each class of ours has a child here that is also the
class which PySocks would have raised, and the one it means. Errors of ours get that class on their
way out (`rename`).
"""

from __future__ import annotations

import errno
import os
import socket

from .. import errors as ours
from ..protocol.steps import METHOD_CHOICE
from ..sockets.lookup import NameLookupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


#: what PySocks says of a reply
SOCKS4_ERRORS = {
    0x5B: "Request rejected or failed",
    0x5C: "Request rejected because SOCKS server cannot connect to identd on the client",
    0x5D: "Request rejected because the client program and identd report different user-ids",
}
SOCKS5_ERRORS = {
    0x01: "General SOCKS server failure",
    0x02: "Connection not allowed by ruleset",
    0x03: "Network unreachable",
    0x04: "Host unreachable",
    0x05: "Connection refused",
    0x06: "TTL expired",
    0x07: "Command not supported, or protocol error",
    0x08: "Address type not supported",
}
_WORDS = {"SOCKS4": SOCKS4_ERRORS, "SOCKS5": SOCKS5_ERRORS}


class ProxyError(ours.ProxyError):
    """What all have in common.

    Attributes:
        msg (str): the text.
        socket_err (OSError | None): what the operating system said, if it was that.
    """

    def __init__(self, msg: str, socket_err: Any = None) -> None:
        text = f"{msg}: {socket_err}" if socket_err else msg
        super().__init__(getattr(socket_err, "errno", None) or errno.EIO, text)
        self._socket_err = socket_err

    def __reduce__(self) -> Any:
        return _remake, (type(self), self.args, self.__dict__)

    def __str__(self) -> str:
        return self.msg

    @property
    def msg(self) -> str:
        return str(self.strerror)

    @property
    def socket_err(self) -> Any:
        return self._socket_err


class GeneralProxyError(ProxyError):
    """The conversation with the proxy went wrong."""


class ProxyConnectionError(ProxyError):
    """The proxy cannot be reached."""


class SOCKS5AuthError(ProxyError):
    """A SOCKS5 proxy refused the login, or takes none of ours."""


class SOCKS5Error(ProxyError):
    """A SOCKS5 proxy said no."""


class SOCKS4Error(ProxyError):
    """A SOCKS4 proxy said no."""


class HTTPError(ProxyError):
    """An HTTP proxy said no."""


class _Renamed(ProxyError):
    """An error of ours under a name of PySocks', whose words its text begins with.

    On Python 3, PySocks wraps what goes wrong in a conversation, whatever it is, in a
    GeneralProxyError with the text "Socket error: " and the inner error's; which that was, is its
    `socket_err`. So programs look there, or for a GeneralProxyError, and some for the inner class.
    """

    _name: type[ProxyError]

    def __str__(self) -> str:
        if self._name is ProxyConnectionError:
            place = str(self.proxy).partition("://")[2].rpartition("@")[2]
            where = f"{_protocol_of(self)} proxy {place}"
            return f"Error connecting to {where}: {ours.ProxyError.__str__(self)}"
        return f"Socket error: {self._inner_text()}"

    def _inner_text(self) -> str:
        words, text = self._words(), ours.ProxyError.__str__(self)
        return f"{words}: {text}" if words else text

    def _words(self) -> str | None:
        """What PySocks says of it, if it would say more than that something went wrong."""
        if isinstance(self, ours.ProxyTimeoutError):
            return "timed out"
        if isinstance(self, ours.ProxyReplyError):
            if self.protocol == "HTTP":
                return f"{self.code}: {self.reply.title()}"
            words = _WORDS[self.protocol].get(self.code, "Unknown error")
            return f"{self.code:#04x}: {words}"
        if self._name is HTTPError:
            return "407: Proxy Authentication Required"
        if self._name is SOCKS5AuthError:
            if self.phase == METHOD_CHOICE:
                return "All offered SOCKS5 authentication methods were rejected"
            return "SOCKS5 authentication failed"
        return None

    @property
    def msg(self) -> str:
        return str(self)

    @property
    def socket_err(self) -> Any:
        if isinstance(self, ours.ProxyTimeoutError):
            return TimeoutError("timed out")  # as urllib3 asks
        if isinstance(self, NameLookupError):
            return socket.gaierror(*self.args)
        if isinstance(self.__cause__, OSError):
            return self.__cause__
        number = self.errno or errno.EIO
        if self._name is ProxyConnectionError:  # from another process: the cause stayed there
            return OSError(number, os.strerror(number))
        inner = self._name(self._inner_text())
        inner.errno = number
        return inner


def _remake(
    kind: type[ProxyError], arguments: tuple[Any, ...], state: dict[str, Any]
) -> ProxyError:
    error = kind.__new__(kind, *arguments)
    OSError.__init__(error, *arguments)
    error.__dict__.update(state)
    return error


# those that PySocks raises as they are
_ALONE = (GeneralProxyError, ProxyConnectionError)
_BY_PROTOCOL = {"SOCKS5": SOCKS5Error, "SOCKS4": SOCKS4Error, "HTTP": HTTPError}


def _protocol_of(error: ours.ProxyError) -> str:
    """The scheme, but for its last letter, which says who looks names up."""
    return str(error.proxy).partition("://")[0][:6].upper()


def _name_for(error: ours.ProxyError) -> type[ProxyError]:
    """The class that PySocks would have raised."""
    if isinstance(error, ours.ProxyReplyError):
        return _BY_PROTOCOL[error.protocol]
    if isinstance(error, ours.ProxyAuthenticationError):
        return HTTPError if _protocol_of(error) == "HTTP" else SOCKS5AuthError
    if isinstance(error, ours.ProxyConnectionError) or error.phase == "the connection to the proxy":
        return ProxyConnectionError
    return GeneralProxyError


def _combined(kind: type[ours.ProxyError], name: type[ProxyError]) -> type[ours.ProxyError]:
    """The class that is all of them; under a name in this module, so that it can be pickled."""
    label = f"{name.__name__}_{kind.__name__}"
    found = globals().get(label)
    if found is None:
        members = {"__module__": __name__, "__qualname__": label, "_name": name}
        names = (name,) if name in _ALONE else (name, GeneralProxyError)
        found = globals()[label] = type(label, (_Renamed, *names, kind), members)
    return found


def __getattr__(label: str) -> Any:
    """A combined class that another process has pickled."""
    name, _, kind = label.partition("_")
    found = NameLookupError if kind == "NameLookupError" else ours.__dict__.get(kind)
    if found is None or name not in globals():
        raise AttributeError(label)
    return _combined(found, globals()[name])


def rename(error: ours.ProxyError) -> None:
    """Give an error of ours the class that PySocks' users look for, besides its own."""
    if not isinstance(error, ProxyError):
        error.__class__ = _combined(type(error), _name_for(error))
