"""A proxy as a value: from a URL, from the environment, in a chain.

A `Proxy` is immutable, hashable and picklable. Its equality covers the credentials, so connection
pools keyed by it keep identities apart; its `repr` and `str` never show them.
"""

from __future__ import annotations

from os import environ as _process_environ

from .errors import InvalidProxyError, InvalidTargetError
from .hosts import clean_host, pack_ip, parse_port

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any, TypeAlias

    from .types import Host, ProxyChooser
    from .types import ProxyLike as ProxyLike

    Chain: TypeAlias = "tuple[Proxy, ...]"
    #: what a ``proxy=`` means, made ready by `as_route`
    Route: TypeAlias = "Chain | ProxyChooser | None"

SOCKS4, SOCKS4A, SOCKS5, SOCKS5H, HTTP = "socks4", "socks4a", "socks5", "socks5h", "http"
SCHEMES = (SOCKS4, SOCKS4A, SOCKS5, SOCKS5H, HTTP)
_ALIASES = {"socks": SOCKS5H}
_DEFAULT_PORTS = {HTTP: 8080}
_DEFAULT_PORT = 1080  # IANA: socks
_MAX_LOGIN = 255  # bytes: RFC 1929 counts each in one octet
_TOR_PORTS = (9050, 9150)
_HIDDEN = "***:***@"
_WRONG_PORT = "a proxy's port is a number from 1 to 65535"


class Secret(bytes):
    """Bytes that do not show: tracebacks print the arguments of functions, and go into logs."""

    def __repr__(self) -> str:
        return "<secret bytes>"

    __str__ = __repr__


class Proxy:
    """One proxy server and how to log in to it.

    Args:
        scheme: ``socks4``, ``socks5`` (names are resolved here, as curl has it), ``socks4a``,
            ``socks5h`` (resolved by the proxy), ``socks`` (= ``socks5h``) or ``http`` (CONNECT).
        host: name or address of the proxy; unused with `path`.
        port: 1 to 65535; by default 1080, for ``http`` 8080.
        username, password: str (sent as UTF-8). SOCKS5: 1 to 255 bytes for the name, 0 to 255 for
            the password (RFC 1929). SOCKS4: the user id only. HTTP: Basic (RFC 7617).
        path: of a Unix socket to connect to instead of host and port; absolute.
        require_auth: refuse a SOCKS5 server that picks "no authentication" although credentials
            were given; without it many servers silently never look at them.
        allow_empty_username: send an empty user name, which RFC 1929 forbids and Tor accepts.
        pipelined: send greeting, login and request in one segment, and save one or two round trips;
            docs/performance.md tells which servers can do that. SOCKS5 only, and with a login only
            if that is all that is offered (`require_auth`), and never to Tor.
        udp_source_unknown: say zeros when asked where datagrams will come from (RFC 1928, section
            4), instead of the socket's port: for a proxy that compares, behind a router that
            changes ports. SOCKS5 only.

    Raises:
        InvalidProxyError: any of these is wrong; its text never repeats a credential.
    """

    __slots__ = (
        "_key",
        "allow_empty_username",
        "endpoint",
        "host",
        "local_dns",
        "login",
        "password",
        "path",
        "pipelined",
        "port",
        "predict",
        "require_auth",
        "scheme",
        "straight",
        "udp_source_unknown",
        "username",
    )

    scheme: str
    host: str
    port: int
    username: str | None
    password: str | None
    path: str | None
    require_auth: bool
    allow_empty_username: bool
    pipelined: bool
    udp_source_unknown: bool
    #: user name and password as they are sent (see `encode_login`), or None
    login: tuple[Secret, Secret] | None
    #: what connect() takes for a proxy whose host is an IPv4 address; else None
    endpoint: tuple[str, int] | None
    #: the same, if nothing else is special on the way there
    straight: tuple[str, int] | None
    #: whether names are resolved here
    local_dns: bool
    #: how a CONNECT there mostly goes, once `protocol.predictor` has been asked
    predict: Callable[[str, int], Any] | None
    _key: tuple[Any, ...]

    def __init__(
        self,
        scheme: str,
        host: Host = "localhost",
        port: int | None = None,
        *,
        username: str | None = None,
        password: str | None = None,
        path: str | None = None,
        require_auth: bool = False,
        allow_empty_username: bool = False,
        pipelined: bool = False,
        udp_source_unknown: bool = False,
    ) -> None:
        if not isinstance(scheme, str):
            raise TypeError(f"a scheme is a str, not {type(scheme).__name__}")
        scheme = _ALIASES.get(scheme.lower(), scheme.lower())
        if "://" in scheme:
            raise InvalidProxyError("Proxy() takes the parts of a URL; see Proxy.from_url")
        if scheme not in SCHEMES:
            # "user:secret" is no scheme either, and not for others to read
            named = f" {scheme!r}" if scheme.isalnum() else ""
            known = ", ".join((*SCHEMES, *_ALIASES))
            raise InvalidProxyError(f"unknown proxy scheme{named}: use one of {known}")
        host = _clean_proxy_host(host)
        if port is None:
            port = _DEFAULT_PORTS.get(scheme, _DEFAULT_PORT)
        if not isinstance(port, int) or isinstance(port, bool) or not 0 < port < 65536:
            raise InvalidProxyError(_WRONG_PORT)
        if path is not None:
            _check_path(path)
        if username is None and password is not None:
            username = ""
        _check_login(scheme, username, password, allow_empty_username)
        if require_auth and (scheme not in (SOCKS5, SOCKS5H) or username is None):
            raise InvalidProxyError("require_auth needs SOCKS5 and a user name")
        if udp_source_unknown and scheme not in (SOCKS5, SOCKS5H):
            raise InvalidProxyError("udp_source_unknown needs SOCKS5; the others have no UDP")
        if pipelined:
            _check_pipelined(scheme, port if path is None else path, username, require_auth)
        key = (
            scheme,
            host if path is None else "localhost",
            port if path is None else 0,
            username,
            password,
            path,
            bool(require_auth),
            bool(allow_empty_username),
            bool(pipelined),
            bool(udp_source_unknown),
        )
        for name, value in zip(_FIELDS, key, strict=True):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "_key", key)
        object.__setattr__(self, "predict", None)
        for name, value in self._known_beforehand():
            object.__setattr__(self, name, value)

    def _known_beforehand(self) -> Iterator[tuple[str, Any]]:
        """What every connect would ask."""
        login = None
        if self.username is not None:
            login = Secret(encode_login(self.username)), Secret(encode_login(self.password or ""))
        yield "login", login
        literal = self.path is None and ":" not in self.host and pack_ip(self.host) is not None
        endpoint = (self.host, self.port) if literal else None
        yield "endpoint", endpoint
        yield "straight", None if self.pipelined else endpoint
        yield "local_dns", self.scheme in (SOCKS4, SOCKS5)

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        require_auth: bool = False,
        allow_empty_username: bool = False,
        pipelined: bool = False,
        udp_source_unknown: bool = False,
    ) -> Proxy:
        """A proxy from ``scheme://[user[:password]@]host[:port][/path]``.

        User and password are percent-decoded once (RFC 3986). ``scheme://localhost/path`` is a Unix
        socket, as in curl.

        Raises:
            InvalidProxyError: not such a URL.
        """
        scheme, separator, rest = url.strip().partition("://")
        if not separator:
            raise InvalidProxyError(
                "a proxy URL starts with its scheme, as in socks5h://127.0.0.1:1080"
            )
        before, another, _ = rest.partition("://")
        if another and ("," in before or len(before.split()) > 1):
            raise InvalidProxyError("a URL is one proxy; a chain is a list of them, nearest first")
        if "?" in rest or "#" in rest:
            raise InvalidProxyError(
                "a proxy URL has no query or fragment; write ? and # in a password as %3F and %23"
            )
        authority, slash, path = rest.partition("/")
        login, at, place = authority.rpartition("@")
        username = password = None
        if at and login:
            user, colon, secret = login.partition(":")
            username = _percent_decoded(user)
            password = _percent_decoded(secret) if colon else None
        if "@" in path and place.lower() not in ("", "localhost"):
            raise InvalidProxyError("a / in a proxy URL's user name or password is written %2F")
        host, port = _split_host_port(place)
        socket_path = None
        if path:
            if host.lower() not in ("", "localhost") or port is not None:
                raise InvalidProxyError(
                    "only a Unix socket has a path, as in socks5h://localhost/run/tor/socks"
                )
            socket_path = slash + _percent_decoded(path)
        elif not host:
            raise InvalidProxyError("the proxy URL has no host")
        return cls(
            scheme,
            host or "localhost",
            port,
            username=username,
            password=password,
            path=socket_path,
            require_auth=require_auth,
            allow_empty_username=allow_empty_username,
            pipelined=pipelined,
            udp_source_unknown=udp_source_unknown,
        )

    @classmethod
    def from_environ(
        cls,
        scheme: str | None = None,
        host: Host | None = None,
        port: int | None = None,
        *,
        environ: Mapping[str, str] | None = None,
    ) -> Proxy | None:
        """The proxy that the environment names, or None.

        Looked at in this order, lower case before upper: ``<scheme>_proxy`` if a `scheme` is given,
        ``socks_proxy``, ``all_proxy``. A value without a scheme is SOCKS5 with remote names in
        ``socks_proxy`` and HTTP elsewhere, as in curl. ``HTTP_PROXY`` is ignored in a CGI program,
        where a request header sets it.

        Args:
            scheme: of the URL to be fetched, e.g. ``"https"``.
            host, port: of the target; with a host, ``no_proxy`` decides whether there is None.

        As a chooser: ``proxy=lambda host, port: Proxy.from_environ(host=host, port=port)``.

        Raises:
            InvalidProxyError: the variable's value cannot be used; the text names the variable.
            InvalidTargetError: the host is none.
        """
        if isinstance(host, int):
            raise TypeError(
                "from_environ takes a scheme first; where a callable is wanted, it is "
                "lambda host, port: Proxy.from_environ(host=host, port=port)"
            )
        if host is not None:
            host = clean_host(host)
        found = cls._from_variables(
            _process_environ if environ is None else environ, scheme, host, port
        )
        if isinstance(found, InvalidProxyError):
            raise found  # here, where no frame that it keeps holds what the variable has
        return found

    @classmethod
    def _from_variables(
        cls, env: Mapping[str, str], scheme: str | None, host: str | None, port: int | None
    ) -> Proxy | InvalidProxyError | None:
        if host is not None:
            from .bypass import Bypass

            no_proxy = env.get("no_proxy") or env.get("NO_PROXY", "")
            if no_proxy and Bypass.from_no_proxy(no_proxy).matches(host, port):
                return None
        names = ["socks_proxy", "all_proxy"]
        if scheme is not None:
            names.insert(0, f"{scheme.lower()}_proxy")
        for name in names:
            for variable in (name, name.upper()):
                value = env.get(variable, "").strip()
                if not value or (variable == "HTTP_PROXY" and "REQUEST_METHOD" in env):
                    continue
                if "://" not in value:
                    value = f"{SOCKS5H if name == 'socks_proxy' else HTTP}://{value}"
                try:
                    return cls.from_url(value)
                except InvalidProxyError as exc:
                    return InvalidProxyError(f"{variable}: {exc}")
        return None

    @property
    def remote_dns(self) -> bool:
        """Whether names go to the proxy unresolved."""
        return not self.local_dns

    def replace(self, **changes: Any) -> Proxy:
        """A copy with some of the constructor's arguments changed.

        ``username=None`` takes the password away too.
        """
        if changes.get("username", "") is None:
            changes.setdefault("password", None)
        fields: dict[str, Any] = {name: getattr(self, name) for name in _FIELDS}
        if self.path is not None:
            fields["port"] = None
        return Proxy(**{**fields, **changes})

    def to_url(self, *, with_credentials: bool = False) -> str:
        """The URL; with its user name and password in clear only if asked so."""
        login = ""
        if self.username is not None:
            login = self._encoded_login() if with_credentials else _HIDDEN
        if self.path is not None:
            return f"{self.scheme}://{login}localhost{_percent_encoded(self.path, '/')}"
        host = f"[{self.host.replace('%', '%25')}]" if ":" in self.host else self.host
        return f"{self.scheme}://{login}{host}:{self.port}"

    def _encoded_login(self) -> str:
        login = _percent_encoded(self.username or "")
        if self.password is not None or not login:  # "@" alone would be no login
            login += ":" + _percent_encoded(self.password or "")
        return login + "@"

    def __str__(self) -> str:
        return self.to_url()

    def __repr__(self) -> str:
        flags = [name for name in _FIELDS[_FIELDS.index("require_auth") :] if getattr(self, name)]
        return f"<Proxy {' '.join([self.to_url(), *flags])}>"

    def __eq__(self, other: object) -> bool:
        return self._key == other._key if isinstance(other, Proxy) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Proxy cannot be changed; use replace({name}=...)")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a Proxy cannot be changed; use replace({name}=...)")

    def __reduce__(self) -> tuple[Any, ...]:
        port = None if self.path is not None else self.port
        return _rebuild, (self.scheme, self.host, port, *self._key[3:])


_FIELDS = (
    "scheme",
    "host",
    "port",
    "username",
    "password",
    "path",
    "require_auth",
    "allow_empty_username",
    "pipelined",
    "udp_source_unknown",
)


def _rebuild(*fields: Any) -> Proxy:
    return Proxy(**dict(zip(_FIELDS, fields, strict=True)))


def _check_login(
    scheme: str, username: str | None, password: str | None, allow_empty_username: bool
) -> None:
    if username is None:
        return
    user_length = _encoded_length("user name", username)
    password_length = _encoded_length("password", password or "")
    if scheme == HTTP:
        if ":" in username:
            raise InvalidProxyError("a user name for an HTTP proxy cannot contain a colon")
        return
    version = "SOCKS5"
    if scheme in (SOCKS4, SOCKS4A):
        version = "SOCKS4"
        if password:
            raise InvalidProxyError("SOCKS4 has a user id but no password; use socks5h")
        if "\0" in username:
            raise InvalidProxyError("a SOCKS4 user id cannot contain NUL, which ends it")
    elif not username and not allow_empty_username:
        raise InvalidProxyError("the user name is empty; SOCKS5 wants 1 to 255 bytes")
    for what, length in (("user name", user_length), ("password", password_length)):
        if length > _MAX_LOGIN:
            raise InvalidProxyError(f"the {what} has {length} bytes; {version} takes {_MAX_LOGIN}")


def _check_pipelined(
    scheme: str, place: int | str, username: str | None, require_auth: bool
) -> None:
    if scheme not in (SOCKS5, SOCKS5H):
        raise InvalidProxyError("pipelined needs SOCKS5; the others take one round trip anyway")
    if username is None:
        return
    if not require_auth:
        raise InvalidProxyError("pipelined with a login needs require_auth: one method to offer")
    # Tor swallows its answer to the greeting then (0.4.9): it cannot be told what it picked.
    if username.startswith("<torS0X>") or place in _TOR_PORTS:
        raise InvalidProxyError("Tor cannot be sent a login along with the greeting (pipelined)")
    if isinstance(place, str):
        raise InvalidProxyError(
            "a login cannot go along with the greeting (pipelined) to a Unix socket: "
            "it is Tor's, most likely, and Tor cannot take that"
        )


def _encoded_length(what: str, text: str) -> int:
    if not isinstance(text, str):
        raise TypeError(f"a {what} is a str, not {type(text).__name__}")
    if not _is_sendable(text):
        raise InvalidProxyError(f"the {what} cannot be encoded")
    return len(encode_login(text))


def _is_sendable(text: str) -> bool:
    # Asked, so that what is raised does not drag the UnicodeError along: that holds the text.
    try:
        encode_login(text)
    except UnicodeEncodeError:
        return False
    return True


def _clean_proxy_host(host: Host) -> str:
    try:
        host = clean_host(host)
        lengths = set(map(len, host.removesuffix(".").split(".")))
        if ":" in host or (0 not in lengths and max(lengths) < 64):
            return host
        reason = "a part of a name between dots has 1 to 63 letters"  # or no resolver takes it
    except InvalidTargetError as exc:
        reason = str(exc)
    # Outside the handler for the same reason.
    raise InvalidProxyError(f"the proxy's host is wrong: {reason}")


def _check_path(path: str) -> None:
    if len(path) < 2 or not path.startswith("/") or "\0" in path or not _is_sendable(path):
        raise InvalidProxyError("the path of a proxy's Unix socket is absolute, without NUL")


def encode_login(text: str) -> bytes:
    """A user name or password as sent: UTF-8, or the very bytes a URL had percent-encoded."""
    return text.encode("utf-8", "surrogateescape")


def _percent_decoded(text: str) -> str:
    if "%" not in text:
        return text
    from urllib.parse import unquote

    return unquote(text, errors="surrogateescape")


def _percent_encoded(text: str, safe: str = "") -> str:
    from urllib.parse import quote

    return quote(text, safe=safe, errors="surrogateescape")


def _split_host_port(place: str) -> tuple[str, int | None]:
    if place.startswith("["):
        host, bracket, tail = place.partition("]")
        if not bracket or (tail and not tail.startswith(":")):
            raise InvalidProxyError("the proxy URL's IPv6 address has no closing bracket")
        host, text = _percent_decoded(host[1:]), tail[1:]
        if ":" not in host:
            raise InvalidProxyError("brackets in a proxy URL are for IPv6 addresses only")
    else:
        host, _, text = place.partition(":")
        if ":" in text:
            raise InvalidProxyError("an IPv6 address in a proxy URL wants brackets: [::1]")
    if not text:
        return host, None
    port = parse_port(text)
    if port is None:
        raise InvalidProxyError(_WRONG_PORT)
    return host, port


def as_route(proxy: ProxyLike) -> Route:
    """What a ``proxy=`` argument means: a chain (the nearest proxy first), a chooser, or None.

    Raises:
        InvalidProxyError: an empty list, a bad URL, or a Unix socket behind another proxy.
        TypeError: none of the types that are taken.
    """
    if proxy is None or callable(proxy):
        return proxy
    if not isinstance(proxy, (list, tuple)):
        return (_as_hop(proxy),)
    chain = tuple(map(_as_hop, proxy))
    if not chain:
        raise InvalidProxyError("a chain needs at least one proxy")
    if any(hop.path is not None for hop in chain[1:]):
        raise InvalidProxyError("only the nearest proxy of a chain can be a Unix socket")
    if any("%" in hop.host for hop in chain[1:]):
        raise InvalidProxyError("only the nearest proxy of a chain can have a zone in its address")
    return chain


def _as_hop(proxy: object) -> Proxy:
    if isinstance(proxy, Proxy):
        return proxy
    if isinstance(proxy, str):
        return Proxy.from_url(proxy)
    kind = type(proxy).__name__
    raise TypeError(f"a proxy is a URL, a Proxy, a list of these or a callable, not {kind}")


def choose(route: Route, host: str, port: int) -> Chain | None:
    """The chain for one target: asks a chooser, also one that answers with another."""
    for _ in range(8):
        if not callable(route):
            return route
        route = as_route(route(host, port))
    raise InvalidProxyError("the proxy callable keeps answering with callables")
