"""The pytest fixtures, in pytest runs of their own."""

import subprocess
import sys

import pytest

pytest_plugins = ["pytester"]


@pytest.fixture
def passes(pytester):
    """Runs tests in another process, where warnings are errors; all must pass."""

    def run(source, **outcomes):
        pytester.makepyfile(source)
        arguments = ["-p", "socksy.testing.plugin"] if _not_installed() else []
        result = pytester.runpytest_subprocess("-q", "-W", "error", *arguments)
        result.assert_outcomes(**(outcomes or {"passed": 1}))
        return result

    return run


def _not_installed():
    from importlib.metadata import entry_points

    return "socksy" not in {point.name for point in entry_points(group="pytest11")}


def test_socks_server(passes):
    passes(
        """
        import socksy

        def test_it(socks_server):
            address = socks_server.address
            with socksy.create_connection(address, 5, proxy=socks_server.url()):
                assert socks_server.requests[0].port == address[1]
        """
    )


def test_socks_server_factory(passes):
    passes(
        """
        import socket, pytest
        made = []

        def test_it(socks_server_factory):
            made.append(socks_server_factory(users={"alice": "secret"}))
            made.append(socks_server_factory("::1"))
            assert made[0].proxy().username == "alice"
            assert made[1].address[0] == "::1"

        def test_they_are_gone():
            for server in made:
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection(server.address)
        """,
        passed=2,
    )


def test_dns_recorder(passes):
    passes(
        """
        import socket

        def test_it(dns_recorder):
            assert dns_recorder.names == []
            try:
                socket.getaddrinfo("does-not-exist.invalid", 80)
            except OSError:
                pass
            assert dns_recorder.names == ["does-not-exist.invalid"]
        """
    )


def test_no_local_lookup_lets_a_proxied_connection_pass(passes):
    passes(
        """
        import socksy

        def test_it(no_local_lookup, socks_server_factory):
            server = socks_server_factory(names={"www.test": "127.0.0.1"})
            with socksy.create_connection(("www.test", server.port), 5, proxy=server.url()):
                assert server.requests[0].host == "www.test"
        """
    )


def test_no_local_lookup_fails_a_test(passes):
    result = passes(
        """
        import socket

        def test_it(no_local_lookup):
            socket.getaddrinfo("secret.invalid", 80)
        """,
        failed=1,
        errors=1,
    )
    result.stdout.fnmatch_lines(["*LocalLookup: 'secret.invalid' would have been looked up*"])


def test_no_local_lookup_fails_a_test_that_hides_the_error(passes):
    result = passes(
        """
        import socket

        def test_it(no_local_lookup):
            try:
                socket.getaddrinfo("secret.invalid", 80)
            except BaseException:
                pass
        """,
        passed=1,
        errors=1,
    )
    result.stdout.fnmatch_lines(["*looked up locally: secret.invalid*"])


def test_loading_the_plugin_loads_neither_server_nor_ssl():
    code = (
        "import sys, pytest; before = set(sys.modules); import socksy.testing.plugin; "
        "print({'socksy.testing.server', 'ssl', 'asyncio'} & (set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
