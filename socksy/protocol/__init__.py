"""The protocols as bytes: no sockets, no clock, no threads, no DNS in this folder.

`tunnel` is the client's side of a whole chain, `accept` the server's side of one connection;
`reply_bytes` is what a server answers.
"""

from .route import Leg, bind_peer, tunnel
from .server import accept, reply_bytes

__all__ = ["Leg", "accept", "bind_peer", "reply_bytes", "tunnel"]
