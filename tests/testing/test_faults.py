"""Every fault, seen with a plain socket; and a few with our client."""

import pytest

import socksy
from socksy.testing import SocksServer, faults
from socksy.testing.faults import (
    PHASES,
    Fault,
    answer_with,
    atyp_zero,
    bound_address,
    close_after,
    close_before,
    cut_short,
    glue_banner,
    instead_of,
    one_recv_per_message,
    only_if,
    pause_before,
    reply_one_byte_at_a_time,
    reset_at,
    stall_at,
    two_byte_replies,
)

from ..support import eventually, read_exactly
from . import raw
from .raw import connected

CONNECT, METHOD_CHOICE, LOGIN_ANSWER, REPLY, SECOND_REPLY = PHASES
REFUSED = b"\5\5\0\1" + bytes(6)


@pytest.fixture
def conversation(echo_server):
    """Talks SOCKS5 with a login to a faulty server, and returns all that it says."""

    def talk(*several, users=True):
        login = {"alice": "secret"} if users else None
        with SocksServer(users=login, faults=several) as server, connected(server) as sock:
            sock.sendall(b"\5\1\2" + b"\1\5alice\6secret" if users else b"\5\1\0")
            sock.sendall(b"\5\1\0" + raw.ip(echo_server))
            sock.shutdown(1)
            return raw.everything(sock)

    return talk


def test_without_faults(conversation):
    heard = conversation()
    assert heard[:8] == b"\5\2" + b"\1\0" + b"\5\0\0\1"
    assert heard[14:] == raw.BANNER


@pytest.mark.parametrize(
    ("phase", "heard"),
    [(CONNECT, b""), (METHOD_CHOICE, b""), (LOGIN_ANSWER, b"\5\2"), (REPLY, b"\5\2\1\0")],
)
def test_close_before(conversation, phase, heard):
    assert conversation(close_before(phase)) == heard


@pytest.mark.parametrize(
    ("phase", "length"), [(CONNECT, 0), (METHOD_CHOICE, 2), (LOGIN_ANSWER, 4), (REPLY, 14)]
)
def test_close_after(conversation, phase, length):
    assert len(conversation(close_after(phase))) == length


@pytest.mark.parametrize("count", range(1, 10))
def test_cut_short(conversation, count):
    assert len(conversation(cut_short(REPLY, count))) == 4 + count


@pytest.mark.parametrize("phase", [CONNECT, METHOD_CHOICE, REPLY])
def test_reset_at(phase):
    with SocksServer(faults=reset_at(phase)) as server:
        # a connect with a timeout may hear of the reset already
        with pytest.raises(ConnectionResetError), connected(server) as sock:
            raw.ask5(sock, 1, raw.ip(("127.0.0.1", 1)))
            sock.recv(1)


@pytest.mark.parametrize(
    ("fault", "length"),
    [
        (stall_at(CONNECT), 0),
        (stall_at(METHOD_CHOICE), 0),
        (stall_at(METHOD_CHOICE, after=1), 1),
        (stall_at(REPLY), 2),
        (stall_at(REPLY, after=4), 6),
        (two_byte_replies(5), 4),
    ],
    ids=str,
)
def test_silence_without_closing(fault, length):
    with SocksServer(faults=fault) as server, connected(server) as sock:
        sock.sendall(raw.NO_LOGIN + b"\5\1\0" + raw.ip(("127.0.0.1", 1)))
        assert len(read_exactly(sock, length)) == length
        sock.settimeout(0.05)
        with pytest.raises(TimeoutError):
            sock.recv(1)


def test_the_client_ends_a_silence():
    with SocksServer(faults=stall_at(METHOD_CHOICE)) as server:
        with connected(server) as sock:
            sock.sendall(raw.NO_LOGIN)
        server.wait_until_idle()


def test_bytes_one_at_a_time(conversation):
    assert len(conversation(reply_one_byte_at_a_time())) == 14 + len(raw.BANNER)


def test_each_byte_waits_for_its_interval():
    with SocksServer(faults=reply_one_byte_at_a_time(0.05)) as server, connected(server) as sock:
        sock.sendall(raw.NO_LOGIN)
        assert [sock.recv(10), sock.recv(10)] == [b"\5", b"\0"]


def test_a_pause_before_a_message():
    fault = pause_before(METHOD_CHOICE, 0.2)
    with SocksServer(faults=fault) as server, connected(server) as sock:
        sock.sendall(raw.NO_LOGIN)
        sock.settimeout(0.05)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        sock.settimeout(5)
        assert read_exactly(sock, 2) == b"\5\0"


@pytest.mark.parametrize("code", [1, 8, 0x42, 0xF0, 0xFF])
def test_any_reply_code(conversation, code):
    reply = b"\5%c\0\1" % code + bytes(6)
    assert conversation(answer_with(code), users=False) == b"\5\0" + reply


def test_an_answer_without_doing_it(echo_server):
    with SocksServer(faults=answer_with(0)) as server, connected(server) as sock:
        assert raw.ask5(sock, 1, raw.ip(echo_server)) == 0
        assert raw.everything(sock) == b""


@pytest.mark.parametrize(
    ("code", "answer"),
    [(5, 0x5B), (0x5C, 0x5C), (0x5D, 0x5D), (0xF0, 0x5B), (0xFF, 0x5B), (403, 0x5B)],
)
def test_an_answer_in_socks4(code, answer):
    with SocksServer(faults=answer_with(code)) as server, connected(server) as sock:
        assert raw.ask4(sock, 1, "127.0.0.1", 1)[0] == answer


@pytest.mark.parametrize(
    ("code", "answer"),
    [(2, b"403"), (5, b"502"), (503, b"503"), (0xF0, b"502"), (0xFF, b"502"), (200, b"200")],
)
def test_an_answer_in_http(code, answer):
    with SocksServer(faults=answer_with(code)) as server, connected(server) as sock:
        sock.sendall(b"CONNECT 127.0.0.1:1 HTTP/1.1\r\n\r\n")
        assert read_exactly(sock, 12) == b"HTTP/1.1 " + answer


@pytest.mark.parametrize("code", [403, 512])
def test_an_answer_of_http_alone_is_a_general_failure_in_socks5(code):
    with SocksServer(faults=answer_with(code)) as server, connected(server) as sock:
        assert raw.ask5(sock, 1, raw.ip(("127.0.0.1", 1))) == 1


@pytest.mark.parametrize("code", [-1, 1000])
def test_an_answer_that_nobody_can_say_is_an_error(code):
    with pytest.raises(ValueError, match=str(code)):
        answer_with(code)


def test_an_answer_as_second_bind_reply():
    fault = answer_with(6, SECOND_REPLY)
    with SocksServer(faults=fault) as server, connected(server) as sock:
        assert raw.ask5(sock, 2, raw.ip(("0.0.0.0", 0))) == 0
        assert raw.reply5(sock)[0] == 6


def test_atyp_zero(conversation):
    assert conversation(atyp_zero(4), users=False) == b"\5\0" + b"\5\4" + bytes(8)


def test_atyp_zero_in_a_success(conversation):
    assert conversation(atyp_zero(), users=False)[2:6] == b"\5\0\0\0"


@pytest.mark.parametrize(
    ("phase", "heard"),
    [
        (METHOD_CHOICE, b"garbage\1\0\5\0"),
        (LOGIN_ANSWER, b"\5\2garbage\5\0"),
        (REPLY, b"\5\2\1\0garbage"),
        (CONNECT, b"garbage\5\2\1\0\5\0"),
    ],
)
def test_garbage_instead_of_a_message(conversation, phase, heard):
    assert conversation(instead_of(phase, b"garbage")).startswith(heard)


def test_the_http_answer_counts_as_the_reply():
    with SocksServer(faults=instead_of("the HTTP answer", b"x")) as server:
        with connected(server) as sock:
            sock.sendall(b"CONNECT 127.0.0.1:1 HTTP/1.1\r\n\r\n")
            assert raw.everything(sock) == b"x"


def test_another_bound_address(conversation):
    heard = conversation(bound_address("", 0), users=False)
    assert heard == b"\5\0" + b"\5\0\0\3\0\0\0" + raw.BANNER


def test_the_bound_address_of_a_refusal_stays(echo_server):
    several = answer_with(5), bound_address("name.test", 1)
    with SocksServer(faults=several) as server, connected(server) as sock:
        raw.greet(sock)
        sock.sendall(b"\5\1\0" + raw.ip(echo_server))
        assert raw.everything(sock) == REFUSED


def test_a_banner_in_one_segment_with_the_reply(echo_server):
    with SocksServer(faults=glue_banner(b"glued")) as server, connected(server) as sock:
        raw.greet(sock)
        sock.sendall(b"\5\1\0" + raw.ip(echo_server))
        assert eventually(lambda: len(sock.recv(100, 2)) > 10)
        assert sock.recv(100)[10:15] == b"glued"


def test_no_banner_behind_a_refusal(conversation):
    assert conversation(glue_banner(b"glued"), answer_with(5), users=False) == b"\5\0" + REFUSED


@pytest.mark.parametrize("message", [b"\5", b"\5\2\0"], ids=["in the head", "in the methods"])
def test_a_split_greeting_and_one_recv_per_message(message):
    with SocksServer(faults=one_recv_per_message()) as server, connected(server) as sock:
        sock.sendall(message)
        assert raw.everything(sock) == b""
        assert "split" in server.errors[0].strerror


def test_whole_messages_and_one_recv_per_message(echo_server):
    with SocksServer(faults=one_recv_per_message()) as server, connected(server) as sock:
        assert raw.ask5(sock, 1, raw.ip(echo_server)) == 0


def test_glued_messages_and_one_recv_per_message(echo_server):
    with SocksServer(faults=one_recv_per_message()) as server, connected(server) as sock:
        sock.sendall(raw.NO_LOGIN + b"\5\1\0" + raw.ip(echo_server))
        assert read_exactly(sock, 2) == b"\5\0"
        sock.settimeout(0.05)
        with pytest.raises(TimeoutError):
            sock.recv(1)


@pytest.mark.parametrize("scheme", ["socks4a", "socks5h", "http"])
def test_our_client_says_each_message_at_once(scheme, echo_server):
    fault = one_recv_per_message()
    with SocksServer(faults=fault) as server:
        with socksy.create_connection(echo_server, 5, proxy=server.url(scheme)) as sock:
            assert read_exactly(sock, len(raw.BANNER)) == raw.BANNER


def test_only_if():
    fault = only_if(lambda moment: moment.connection == 1, answer_with(5))
    with SocksServer(faults=fault) as server:
        codes = []
        for _ in range(2):
            with connected(server) as sock:
                codes.append(raw.ask5(sock, 1, raw.ip(server.address)))
    assert codes == [5, 0]


def test_only_if_knows_the_request(echo_server):
    fault = only_if(
        lambda moment: moment.request is not None and moment.request.host == "192.0.2.1",
        bound_address("x", 1),
    )
    with SocksServer(names={"192.0.2.1": "127.0.0.1"}, faults=fault) as server:
        for host, bound in (("127.0.0.1", "127.0.0.1"), ("192.0.2.1", "x")):
            address = host, echo_server[1]
            with socksy.create_connection(address, 5, proxy=server.url()) as sock:
                assert sock.bound_address[0] == bound


def test_faults_add_up(conversation):
    several = bound_address("", 0), reply_one_byte_at_a_time(), close_after(REPLY)
    assert conversation(*several, users=False) == b"\5\0" + b"\5\0\0\3\0\0\0"


def test_faults_can_change_while_the_server_runs(echo_server):
    with SocksServer() as server:
        server.faults = answer_with(5)
        with pytest.raises(ConnectionRefusedError):
            socksy.create_connection(echo_server, 5, proxy=server.url())
        server.faults = ()
        socksy.create_connection(echo_server, 5, proxy=server.url()).close()


def test_a_fault_of_your_own(conversation):
    def shout(moment, script):
        return [piece * 2 for piece in script] if moment.phase == METHOD_CHOICE else script

    assert conversation(Fault("shout", shout), users=False)[:4] == b"\5\0\5\0"


def test_an_unknown_phase_is_an_error():
    with pytest.raises(ValueError, match="the method choice"):
        close_after("the metod choice")


@pytest.mark.parametrize(
    "wrong", ["stall", ["stall"], None, close_after, [close_after(REPLY), None]], ids=repr
)
def test_what_is_no_fault_is_an_error_at_once(wrong):
    with pytest.raises(TypeError, match=r"socksy\.testing\.faults"):
        SocksServer(faults=wrong)
    server = SocksServer()
    with pytest.raises(TypeError, match=r"socksy\.testing\.faults"):
        server.faults = wrong


def test_faults_say_what_they_are():
    several = faults.together((close_after(REPLY), two_byte_replies(5)))
    assert repr(several) == (
        "close_after('the reply') + answer_with(0x05) + two_byte_replies(0x05)"
    )
