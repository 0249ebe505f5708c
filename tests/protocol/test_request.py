"""What a client asked for."""

from socksy.protocol.request import Request


def test_a_request_keeps_what_was_asked():
    request = Request("SOCKS5", 1, "example", 80, username="alice")

    assert (request.protocol, request.command) == ("SOCKS5", 1)
    assert (request.host, request.port, request.username) == ("example", 80, "alice")


def test_nobody_has_logged_in_by_default():
    assert Request("HTTP", 1, "example", 80).username is None


def test_its_repr_does_not_tell_who_asked():
    request = Request("SOCKS5", 3, "example", 80, username="alice")

    assert repr(request) == "<Request SOCKS5 command 3 example:80>"
