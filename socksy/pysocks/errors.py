"""PySocks' exceptions, as classes that are ours as well.

Whoever catches `socks.ProxyConnectionError` or `socksy.ProxyConnectionError`, or the builtin
`ConnectionError`, catches the same error: each class of ours has a child here that is also the
class which PySocks would have raised. Errors of ours get that class on their way out (`rename`).
"""

from __future__ import annotations

import errno

from .. import errors as ours

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


#: what PySocks says of a reply, which programs look for in texts; ours follows
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
    """An error of ours under a name of PySocks': its text follows PySocks' words."""

    def __str__(self) -> str:
        text = ours.ProxyError.__str__(self)
        if isinstance(self, ours.ProxyReplyError) and self.protocol in _WORDS:
            words = _WORDS[self.protocol].get(self.code, "Unknown error")
            return f"{self.code:#04x}: {words}: {text}"
        if isinstance(self, SOCKS5AuthError):
            return f"SOCKS5 authentication failed: {text}"
        return text

    @property
    def msg(self) -> str:
        return str(self)

    @property
    def socket_err(self) -> Any:
        # who looks here wants to tell a passed deadline from the rest
        cause = self.__cause__
        if isinstance(self, ours.ProxyTimeoutError):
            return TimeoutError("timed out")
        return cause if isinstance(cause, OSError) else None


def _remake(
    kind: type[ProxyError], arguments: tuple[Any, ...], state: dict[str, Any]
) -> ProxyError:
    error = kind.__new__(kind, *arguments)
    OSError.__init__(error, *arguments)
    error.__dict__.update(state)
    return error


_BY_PROTOCOL = {"SOCKS5": SOCKS5Error, "SOCKS4": SOCKS4Error, "HTTP": HTTPError}
_AUTHENTICATION = {"SOCKS5": SOCKS5AuthError, "SOCKS4": SOCKS4Error, "HTTP": HTTPError}


def _name_for(error: ours.ProxyError, protocol: str) -> type[ProxyError]:
    """The class that PySocks would have raised."""
    if isinstance(error, ours.ProxyReplyError):
        return _BY_PROTOCOL[error.protocol]
    if isinstance(error, ours.ProxyAuthenticationError):
        return _AUTHENTICATION[protocol]
    if isinstance(error, ours.ProxyConnectionError) or error.phase == "the connection to the proxy":
        return ProxyConnectionError
    return GeneralProxyError


def _combined(kind: type[ours.ProxyError], name: type[ProxyError]) -> type[ours.ProxyError]:
    """The class that is both; under a name in this module, so that it can be pickled."""
    label = f"{name.__name__}_{kind.__name__}"
    found = globals().get(label)
    if found is None:
        members = {"__module__": __name__, "__qualname__": label}
        found = globals()[label] = type(label, (_Renamed, name, kind), members)
    return found


def __getattr__(label: str) -> Any:
    """A combined class that another process has pickled."""
    name, _, kind = label.partition("_")
    if kind in ours.__dict__ and name in globals():
        return _combined(ours.__dict__[kind], globals()[name])
    raise AttributeError(label)


def rename(error: ours.ProxyError, protocol: str) -> None:
    """Give an error of ours the class that PySocks' users look for, besides its own."""
    if not isinstance(error, ProxyError):
        error.__class__ = _combined(type(error), _name_for(error, protocol))
