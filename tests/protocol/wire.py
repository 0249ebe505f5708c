"""Handshakes without sockets: one played against bytes, or two turned against each other."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from socksy.errors import ProxyError, ProxyProtocolError
from socksy.protocol.server import accept, reply_bytes
from socksy.protocol.steps import REPLY, SECOND_REPLY, Pump, Step

APPLICATION = b"\x05\x00\x00\x01220 the target speaks first\r\n\r\n"


class Played(NamedTuple):
    """How a handshake went: what it returned, and which bytes it never asked for."""

    result: Any
    left: bytes


def play(handshake, data, cuts=(), said=None):
    """Run a handshake to its end; the peer says `data`, cut at these places, and then nothing.

    What is sent, message by message, is appended to `said`, even if an error comes out.
    """
    pump = Pump(handshake)
    position = 0
    while True:
        while pump.outgoing:
            if said is not None:
                said.append(pump.outgoing)
            pump.sent(len(pump.outgoing))
        if pump.done:
            return Played(pump.result, data[position:])
        next_cut = min((cut for cut in cuts if cut > position), default=len(data))
        piece = data[position : min(position + pump.missing, next_cut)]
        if not pump.peek:
            position += len(piece)
        pump.receive(piece)


def every_split(data):
    """In one piece, in two at every place, and byte by byte."""
    return [(), *((at,) for at in range(1, len(data))), tuple(range(1, len(data)))]


class Row(NamedTuple):
    """A conversation as a client has it.

    name, start: what it is called, and what makes its handshake.
    says: each message the client sends.
    hears: each answer, with the phase in which it is awaited.
    result: what the handshake returns, or the class of the error that it raises ...
    judged: ... as soon as that many bytes of the last answer are there.
    """

    name: str
    start: Any
    says: list[bytes]
    hears: list[tuple[bytes, str]]
    result: Any
    judged: int | None = None

    @property
    def answers(self):
        return b"".join(data for data, _ in self.hears)


def rows(*table):
    """To parametrize a `Conversations` class with."""
    return pytest.mark.parametrize("row", table, ids=[row.name for row in table])


class Conversations:
    """What must hold for every row, good or bad."""

    @pytest.mark.trap(1, 2)
    def test_each_message_is_sent_in_one_piece_after_the_answer_to_the_last(self, row):
        said = []
        _play_out(row, row.answers, said=said)

        assert said == row.says

    def test_answers_are_understood_split_at_any_byte(self, row):
        for cuts in every_split(row.answers):
            assert _play_out(row, row.answers, cuts) in (b"", None)

    @pytest.mark.trap(1)
    def test_what_comes_behind_the_last_answer_is_never_asked_for(self, row):
        """The application's bytes are left, in whatever pieces they come."""
        data = row.answers + APPLICATION
        for cuts in every_split(data):
            assert _play_out(row, data, cuts) in (APPLICATION, None)

    @pytest.mark.trap(3, 4, 5)
    def test_an_end_of_file_tells_in_which_answer_it_came(self, row):
        """Unless that answer is a refusal which was already there to be judged."""
        start = 0
        for number, (answer, phase) in enumerate(row.hears):
            last = number + 1 == len(row.hears)
            for got in range(len(answer)):
                data = row.answers[: start + got]
                for cuts in ((), range(1, len(data))):
                    if last and row.judged is not None and got >= row.judged:
                        _play_out(row, data, cuts)
                        continue
                    with pytest.raises(ProxyProtocolError) as caught:
                        play(row.start(), data, cuts)
                    assert caught.value.phase == phase
                    how = f"{got} bytes into" if got else "without an answer"
                    assert how in caught.value.strerror
            start += len(answer)


def _play_out(row, data, cuts=(), said=None):
    """Play a row and check its result; returns what was left, None if an error had to come."""
    if row.judged is None:
        result, left = play(row.start(), data, cuts, said)
        assert result == row.result
        return left
    with pytest.raises(row.result) as caught:
        play(row.start(), data, cuts, said)
    assert type(caught.value) is row.result
    assert caught.value.phase == row.hears[-1][1]
    return None


def served(code=0, bound=("192.0.2.1", 1080), peer=None, check=None):
    """The server's side of a whole conversation: reads a request and answers it."""
    request = yield from accept(check)
    yield Step(reply_bytes(request, code, *bound), 0, REPLY)
    if peer is not None:
        yield Step(reply_bytes(request, 0, *peer), 0, SECOND_REPLY)
    return request


class End:
    """One end of a `ConnectionPair`. `outcome` is what its handshake returned or raised."""

    def __init__(self, handshake, inbox, outbox, chunk):
        self._pump = Pump(handshake)
        self._inbox = inbox
        self._outbox = outbox
        self._chunk = chunk
        self.over = False
        self.outcome = None

    def turn(self):
        """Send what there is to send, receive one piece; whether either happened."""
        try:
            moved = self._send() | self._receive()
        except ProxyError as error:
            self.over, self.outcome = True, error
            return True
        if self._pump.done:
            self.over, self.outcome = True, self._pump.result
        return moved or self.over

    def hang_up(self):
        """Meet an end of file."""
        with pytest.raises(ProxyProtocolError) as caught:
            self._pump.receive(b"")
        self.over, self.outcome = True, caught.value

    def _send(self):
        sending = bool(self._pump.outgoing)
        while self._pump.outgoing:
            piece = self._pump.outgoing[: self._chunk]
            self._outbox += piece
            self._pump.sent(len(piece))
        return sending

    def _receive(self):
        piece = bytes(self._inbox[: min(self._pump.missing, self._chunk)])
        if not piece:
            return False
        if not self._pump.peek:
            del self._inbox[: len(piece)]
        self._pump.receive(piece)
        return True


class ConnectionPair:
    """A client and a server with a wire between them, which carries `chunk` bytes at a time.

    After `rotor`, `client` and `server` are what each handshake returned, or the error it raised;
    what was not asked for is still in `to_client` and `to_server`.
    """

    def __init__(self, client, server, chunk=65536):
        self.to_client, self.to_server = bytearray(), bytearray()
        self._ends = (
            End(client, self.to_client, self.to_server, chunk),
            End(server, self.to_server, self.to_client, chunk),
        )

    def rotor(self):
        """Turn both ends until they are done; who waits for one that is gone meets its end."""
        turning = list(self._ends)
        while turning:
            if not any(end.turn() for end in turning):
                assert len(turning) == 1, "both ends wait for each other"
                turning[0].hang_up()
            turning = [end for end in turning if not end.over]
        return self

    @property
    def client(self):
        return self._ends[0].outcome

    @property
    def server(self):
        return self._ends[1].outcome
