"""Every error socksy raises, and what each reply of a proxy means.

All of them are `OSError`s that also derive from the builtin which existing code
already catches, so ``except ConnectionRefusedError`` works through a proxy too::

    ProxyError (OSError)
    |-- ProxyConnectionError (ConnectionError)        the proxy, or a chain's hop, is not reached
    |-- ProxyTimeoutError (TimeoutError)              the deadline passed; .phase says where
    |-- ProxyAuthenticationError (PermissionError)    login refused, or no acceptable method
    |-- ProxyProtocolError                            not SOCKS, or closed early; .hint guesses why
    |-- ProxyUnsupportedError                         this proxy or protocol cannot do this
    |-- DirectTrafficError (PermissionError)          the guard refused to go around the proxy
    `-- ProxyReplyError                               the proxy said no: .code, .reply
        |-- TargetRefusedError (ConnectionRefusedError)
        |-- NotAllowedError (PermissionError)
        |-- HostUnreachableError
        |-- NetworkUnreachableError
        |-- ProxyTTLExpiredError (TimeoutError)
        |-- CommandNotSupportedError
        `-- AddressTypeNotSupportedError

Arguments that can be seen to be wrong before anything is sent are `ValueError`s::

    InvalidArgumentError (ValueError)
    |-- InvalidProxyError           a proxy URL, its host, port or credentials
    `-- InvalidTargetError          a host or an address that cannot be asked of a proxy
        `-- InvalidPortError (OverflowError)    what a plain socket raises for a port out of range

`errno` is always set. No error holds, shows or pickles a user name or a password. (A traceback that
prints variables prints the arguments of the call that failed, and so a URL that was one of them.)
"""

from __future__ import annotations

import errno

__all__ = [
    "AddressTypeNotSupportedError",
    "CommandNotSupportedError",
    "DirectTrafficError",
    "HostUnreachableError",
    "InvalidArgumentError",
    "InvalidPortError",
    "InvalidProxyError",
    "InvalidTargetError",
    "NetworkUnreachableError",
    "NotAllowedError",
    "ProxyAuthenticationError",
    "ProxyConnectionError",
    "ProxyError",
    "ProxyProtocolError",
    "ProxyReplyError",
    "ProxyTTLExpiredError",
    "ProxyTimeoutError",
    "ProxyUnsupportedError",
    "TargetRefusedError",
    "reply_error",
]


class ProxyError(OSError):
    """Anything that goes wrong between the application and the far side of its proxy.

    Attributes:
        errno (int), strerror (str): as on every `OSError`.
        phase (str | None): what was being done or awaited, e.g. ``"the reply"``.
        hint (str | None): what is probably the matter, or what to do about it.
        proxy (str | None): the proxy's URL without credentials.
        target (tuple[str, int] | None): host and port that were asked of that proxy.
        hop, hops (int | None): which proxy of a chain, counted from 1, and how many there are.
    """

    def __init__(
        self, number: int, message: str, *, phase: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(number, message)
        self.phase = phase
        self.hint = hint
        self.proxy: str | None = None
        self.target: tuple[str, int] | None = None
        self.hop: int | None = None
        self.hops: int | None = None

    def __str__(self) -> str:
        text = f"[Errno {self.errno}] {self.strerror}"
        if self.phase is not None:
            text += f", while waiting for {self.phase}"
        where = []
        if self.proxy is not None:
            where.append(f"proxy {self.proxy}")
        if self.hop is not None:
            where.append(f"hop {self.hop} of {self.hops}")
        if self.target is not None:
            host, port = self.target
            where.append(f"target {f'[{host}]' if ':' in host else host}:{port}")
        if where:
            text += f" ({', '.join(where)})"
        if self.hint is not None:
            text += f". {self.hint}"
        return text


class ProxyConnectionError(ProxyError, ConnectionError):
    """The proxy itself cannot be reached. `__cause__` is the operating system's error."""


class ProxyTimeoutError(ProxyError, TimeoutError):
    """The deadline passed before the proxy had connected us; `phase` says where it stood."""

    def __init__(
        self,
        number: int = errno.ETIMEDOUT,
        message: str = "timed out",
        *,
        phase: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(number, message, phase=phase, hint=hint)


class ProxyAuthenticationError(ProxyError, PermissionError):
    """The proxy refused the credentials, or wants a method we have nothing for."""

    def __init__(
        self,
        number: int = errno.EACCES,
        message: str = "the proxy refused the login",
        *,
        phase: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(number, message, phase=phase, hint=hint)


class ProxyProtocolError(ProxyError):
    """What came back is not the protocol: garbage, cut short, or closed early."""

    def __init__(
        self,
        number: int = errno.EPROTO,
        message: str = "the proxy broke the protocol",
        *,
        phase: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(number, message, phase=phase, hint=hint)


class ProxyUnsupportedError(ProxyError):
    """The proxy or its protocol cannot do this: IPv6 over SOCKS4, UDP over HTTP, ..."""

    def __init__(
        self,
        number: int = errno.EOPNOTSUPP,
        message: str = "the proxy cannot do this",
        *,
        phase: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(number, message, phase=phase, hint=hint)


class DirectTrafficError(ProxyError, PermissionError):
    """The guard of a patch refused what would have gone around the proxy: nothing was sent."""


class ProxyReplyError(ProxyError):
    """The proxy understood, and said no.

    Attributes:
        code (int): the reply as sent: SOCKS5 REP, SOCKS4 CD, or the HTTP status.
        reply (str): its name, e.g. ``"connection refused"``; an unknown code has one too.
        protocol (str): ``"SOCKS4"``, ``"SOCKS5"`` or ``"HTTP"``.
    """

    code: int
    reply: str
    protocol: str


class TargetRefusedError(ProxyReplyError, ConnectionRefusedError):
    """The target refused the connection (SOCKS5 05, SOCKS4 5b)."""


class NotAllowedError(ProxyReplyError, PermissionError):
    """The rules of the proxy, or of the onion service, forbid it (SOCKS5 02, F4, F5; SOCKS4 5c)."""


class HostUnreachableError(ProxyReplyError):
    """The target cannot be found or reached (SOCKS5 04, Tor F0 to F3)."""


class NetworkUnreachableError(ProxyReplyError):
    """The proxy has no route to the target's network (SOCKS5 03)."""


class ProxyTTLExpiredError(ProxyReplyError, TimeoutError):
    """The proxy gave up waiting for the target (SOCKS5 06, Tor F7, HTTP 504)."""


class CommandNotSupportedError(ProxyReplyError):
    """The proxy does not do this command (SOCKS5 07): often BIND or UDP ASSOCIATE."""


class AddressTypeNotSupportedError(ProxyReplyError):
    """The proxy does not take this kind of address (SOCKS5 08): often IPv6."""


class InvalidArgumentError(ValueError):
    """An argument is wrong; nothing was sent. The text never repeats a credential."""


class InvalidProxyError(InvalidArgumentError):
    """A proxy URL, its host, port, credentials or options are wrong."""


class InvalidTargetError(InvalidArgumentError):
    """A host or address that cannot be asked of a proxy."""


class InvalidPortError(InvalidTargetError, OverflowError):
    """A port outside its range."""


#: protocol -> code -> (class, errno, name, hint). The one place that knows what replies mean.
_REPLIES: dict[str, dict[int, tuple[type[ProxyReplyError], int, str, str | None]]] = {
    # RFC 1928, section 6; F0 to F7 are Tor's socks-extensions.
    "SOCKS5": {
        0x01: (
            ProxyReplyError,
            errno.EIO,
            "general SOCKS server failure",
            "The name may not exist, or the target may be private, refused or down",
        ),
        0x02: (NotAllowedError, errno.EACCES, "connection not allowed by ruleset", None),
        0x03: (NetworkUnreachableError, errno.ENETUNREACH, "network unreachable", None),
        0x04: (HostUnreachableError, errno.EHOSTUNREACH, "host unreachable", None),
        0x05: (TargetRefusedError, errno.ECONNREFUSED, "connection refused", None),
        0x06: (
            ProxyTTLExpiredError,
            errno.ETIMEDOUT,
            "TTL expired",
            "Tor answers this when it gave up building a circuit",
        ),
        0x07: (
            CommandNotSupportedError,
            errno.EOPNOTSUPP,
            "command not supported",
            "Many proxies, Tor among them, do CONNECT only",
        ),
        0x08: (
            AddressTypeNotSupportedError,
            errno.EAFNOSUPPORT,
            "address type not supported",
            None,
        ),
        0xF0: (
            HostUnreachableError,
            errno.EHOSTUNREACH,
            "onion service descriptor not found",
            "The onion service is not there, or the name is mistyped",
        ),
        0xF1: (HostUnreachableError, errno.EHOSTUNREACH, "onion service descriptor invalid", None),
        0xF2: (
            HostUnreachableError,
            errno.EHOSTUNREACH,
            "onion service introduction failed",
            "The onion service is probably down",
        ),
        0xF3: (HostUnreachableError, errno.EHOSTUNREACH, "onion service rendezvous failed", None),
        0xF4: (
            NotAllowedError,
            errno.EACCES,
            "onion service wants client authorization",
            "Give Tor the client key with ONION_CLIENT_AUTH_ADD or ClientOnionAuthDir",
        ),
        0xF5: (
            NotAllowedError,
            errno.EACCES,
            "onion service refuses this client authorization",
            None,
        ),
        0xF6: (
            ProxyReplyError,
            errno.EINVAL,
            "onion address invalid",
            "A v3 name has 56 letters and digits before .onion; v2 names are gone",
        ),
        0xF7: (
            ProxyTTLExpiredError,
            errno.ETIMEDOUT,
            "onion service introduction timed out",
            None,
        ),
    },
    # "SOCKS: A protocol for TCP proxy across firewalls" (SOCKS4.protocol), CONNECT
    "SOCKS4": {
        0x5B: (
            TargetRefusedError,
            errno.ECONNREFUSED,
            "request rejected or failed",
            "SOCKS4 has one code for everything: refused, unknown name, or forbidden",
        ),
        0x5C: (
            NotAllowedError,
            errno.EACCES,
            "request rejected: the proxy cannot reach identd on this client",
            None,
        ),
        0x5D: (
            NotAllowedError,
            errno.EACCES,
            "request rejected: identd reports another user id",
            None,
        ),
    },
    # RFC 9110, section 15, as proxies use it for CONNECT
    "HTTP": {
        403: (NotAllowedError, errno.EACCES, "forbidden", "Many HTTP proxies allow port 443 only"),
        404: (HostUnreachableError, errno.EHOSTUNREACH, "not found", None),
        405: (CommandNotSupportedError, errno.EOPNOTSUPP, "method not allowed", None),
        500: (ProxyReplyError, errno.EIO, "internal server error", None),
        501: (
            CommandNotSupportedError,
            errno.EOPNOTSUPP,
            "not implemented",
            "This server does not do CONNECT",
        ),
        502: (HostUnreachableError, errno.EHOSTUNREACH, "bad gateway", None),
        503: (HostUnreachableError, errno.EHOSTUNREACH, "service unavailable", None),
        504: (ProxyTTLExpiredError, errno.ETIMEDOUT, "gateway timeout", None),
    },
}


def reply_name(protocol: str, code: int) -> str:
    """The name of a reply code of "SOCKS4", "SOCKS5" or "HTTP"; an unknown one keeps its number."""
    row = _REPLIES[protocol].get(code)
    return f"unknown reply {_written(protocol, code)}" if row is None else row[2]


def _written(protocol: str, code: int) -> str:
    return str(code) if protocol == "HTTP" else f"{code:02x}"


def reply_error(protocol: str, code: int, phase: str = "the reply") -> ProxyReplyError:
    """The error for a reply that is not a success; an unknown code never crashes."""
    kind, number, name, hint = _REPLIES[protocol].get(
        code, (ProxyReplyError, errno.EIO, reply_name(protocol, code), None)
    )
    message = f"{name} ({protocol} reply {_written(protocol, code)})"
    error = kind(number, message, phase=phase, hint=hint)
    error.code = code
    error.reply = name
    error.protocol = protocol
    return error
