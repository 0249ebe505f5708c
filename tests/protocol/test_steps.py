"""How a handshake is driven: `Step`, `Pump`, and the errors of a conversation that ends early."""

import errno

import pytest

from socksy.errors import ProxyError, ProxyProtocolError, ProxyTimeoutError
from socksy.protocol.steps import (
    HTTP_ANSWER,
    LOGIN_ANSWER,
    METHOD_CHOICE,
    REPLY,
    SECOND_REPLY,
    Pump,
    Step,
    closed_early,
    timed_out,
    unexpected,
)


def conversation(*steps):
    """A handshake that returns all it was sent."""
    heard = []
    for step in steps:
        heard.append((yield step))
    return heard


def test_a_step_has_enough_when_it_has_all_it_needs():
    step = Step(b"hello", 7, REPLY)

    assert (step.send, step.need, step.awaiting) == (b"hello", 7, REPLY)
    assert (step.enough, step.peek, step.already) == (7, False, 0)


def test_a_step_can_have_enough_before():
    assert Step(b"", 7, REPLY, 2).enough == 2


class TestPump:
    def test_first_sends_and_then_receives(self):
        pump = Pump(conversation(Step(b"hello", 3, REPLY)))
        assert (pump.outgoing, pump.missing, pump.awaiting) == (b"hello", 0, REPLY)

        pump.sent(5)
        assert (pump.outgoing, pump.missing) == (b"", 3)

        pump.receive(b"abc")
        assert (pump.done, pump.result, pump.missing) == (True, [b"abc"], 0)

    def test_keeps_what_a_partial_send_left_over(self):
        pump = Pump(conversation(Step(b"hello", 3, REPLY)))
        pump.sent(2)

        assert (pump.outgoing, pump.missing) == (b"llo", 0)

    def test_hands_nothing_over_before_it_is_enough(self):
        pump = Pump(conversation(Step(b"", 3, REPLY), Step(b"", 1, REPLY)))
        pump.receive(b"a")
        pump.receive(b"b")
        assert (pump.missing, pump.done) == (1, False)

        pump.receive(b"c")
        pump.receive(b"d")
        assert pump.result == [b"abc", b"d"]

    @pytest.mark.parametrize("data", [b"ab", b"abc", b"abcd"])
    def test_hands_over_what_is_enough_and_what_came_with_it(self, data):
        pump = Pump(conversation(Step(b"", 4, REPLY, 2)))
        pump.receive(data)

        assert pump.result == [data]

    def test_tells_when_to_peek(self):
        pump = Pump(conversation(Step(b"", 9, REPLY, 1, True), Step(b"", 1, REPLY)))
        assert pump.peek

        pump.receive(b"a")
        assert not pump.peek

    def test_goes_through_steps_that_only_send(self):
        pump = Pump(conversation(Step(b"one", 0, REPLY), Step(b"two", 0, REPLY)))
        pump.sent(3)
        assert (pump.outgoing, pump.done) == (b"two", False)

        pump.sent(3)
        assert (pump.result, pump.outgoing) == ([b"", b""], b"")

    def test_goes_through_steps_that_do_nothing(self):
        """As a server does when a client offers no method, or sends no password."""
        pump = Pump(conversation(Step(b"", 0, REPLY), Step(b"", 0, REPLY), Step(b"a", 1, REPLY)))

        assert (pump.outgoing, pump.done) == (b"a", False)

    def test_is_done_at_once_if_there_is_nothing_to_do(self):
        pump = Pump(conversation())

        assert (pump.done, pump.result, pump.missing) == (True, [], 0)

    def test_an_end_of_file_tells_how_far_the_message_had_come(self):
        pump = Pump(conversation(Step(b"", 9, METHOD_CHOICE, already=2)))
        pump.receive(b"abc")
        with pytest.raises(ProxyProtocolError, match="5 bytes into its answer") as caught:
            pump.receive(b"")

        assert caught.value.phase == METHOD_CHOICE

    def test_what_the_handshake_raises_comes_out(self):
        def picky():
            yield Step(b"", 1, REPLY)
            raise ProxyError(errno.EIO, "not like this")

        with pytest.raises(ProxyError, match="not like this"):
            Pump(picky()).receive(b"a")

    def test_a_failure_passes_through_the_handshake(self):
        def naming():
            try:
                yield Step(b"", 1, REPLY)
            except ProxyError as error:
                error.proxy = "socks5h://127.0.0.1:1080"
                raise

        error = timed_out(REPLY)
        with pytest.raises(ProxyTimeoutError) as caught:
            Pump(naming()).fail(error)

        assert caught.value is error
        assert error.proxy == "socks5h://127.0.0.1:1080"

    @pytest.mark.parametrize("more", [[], [Step(b"", 1, REPLY)]], ids=["returns", "goes on"])
    def test_a_handshake_that_swallows_its_failure_has_failed_all_the_same(self, more):
        def swallowing():
            try:
                yield Step(b"", 1, REPLY)
            except ProxyError:
                yield from more

        with pytest.raises(ProxyTimeoutError):
            Pump(swallowing()).fail(timed_out(REPLY))


@pytest.mark.trap(4)
@pytest.mark.parametrize(
    ("awaiting", "hint"),
    [
        (METHOD_CHOICE, "another protocol"),
        (LOGIN_ANSWER, "refuse the login"),
        (REPLY, "OpenSSH"),
        (SECOND_REPLY, "gave up waiting"),
    ],
)
def test_closing_without_an_answer_has_a_usual_meaning(awaiting, hint):
    error = closed_early(awaiting, 0)

    assert error.strerror == "the proxy closed the connection without an answer"
    assert error.phase == awaiting
    assert hint in error.hint


@pytest.mark.parametrize(("awaiting", "got"), [(REPLY, 1), (HTTP_ANSWER, 0)])
def test_closing_otherwise_has_no_usual_meaning(awaiting, got):
    error = closed_early(awaiting, got)

    assert (error.phase, error.hint) == (awaiting, None)


def test_a_deadline_tells_in_what_it_passed():
    error = timed_out(LOGIN_ANSWER)

    assert isinstance(error, TimeoutError)
    assert (error.errno, error.phase) == (errno.ETIMEDOUT, LOGIN_ANSWER)
    assert error.hint is None


def test_a_greeting_that_nobody_answers_was_said_to_another_kind_of_server():
    """A web server, say, waits for the rest of its request."""
    assert "SOCKS5" in timed_out(METHOD_CHOICE).hint


@pytest.mark.trap(11)
def test_another_protocol_is_told_by_its_first_byte():
    error = unexpected(0x48, "SOCKS5", METHOD_CHOICE)

    assert error.strerror == "the answer is not SOCKS5: it begins with 0x48"
    assert "HTTP" in error.hint
    assert unexpected(0x99, "SOCKS5", METHOD_CHOICE).hint is None
