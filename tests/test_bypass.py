"""Which targets go around the proxy."""

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from socksy.bypass import LOOPBACK, Bypass
from socksy.errors import InvalidArgumentError

# rule, what it matches, what it does not
RULES = [
    (
        "example.com",
        ["example.com", "EXAMPLE.COM", "example.com.", "www.example.com", "a.b.example.com"],
        ["example.org", "notexample.com", "example.com.org", "com", "."],
    ),
    (".example.com", ["example.com", "www.example.com"], ["notexample.com"]),
    ("*.example.com", ["example.com", "www.example.com"], ["notexample.com"]),
    ("Example.COM.", ["example.com", "www.example.com."], ["example.org"]),
    ("bücher.example", ["xn--bcher-kva.example"], ["bucher.example"]),
    ("192.0.2.7", ["192.0.2.7", "::ffff:192.0.2.7"], ["192.0.2.70", "www.192.0.2.7", "::7"]),
    ("::1", ["::1", "0:0:0:0:0:0:0:1"], ["::2", "127.0.0.1", "localhost"]),
    ("[::1]", ["::1"], ["::2"]),
    ("fe80::/10", ["fe80::1%eth0", "febf::1%1"], ["fec0::1%eth0"]),
    ("fe80::1%eth0", ["fe80::1", "fe80::1%eth0", "fe80::1%eth1"], ["fe80::2%eth0"]),
    ("::ffff:192.0.2.7", ["192.0.2.7"], ["::192.0.2.7"]),
    ("10.0.0.0/8", ["10.0.0.0", "10.255.255.255"], ["9.255.255.255", "11.0.0.0", "a.10.com"]),
    ("10.1.2.3/8", ["10.9.9.9"], ["11.1.2.3"]),
    ("192.0.2.8/29", ["192.0.2.8", "192.0.2.15"], ["192.0.2.7", "192.0.2.16"]),
    ("192.0.2.7/32", ["192.0.2.7"], ["192.0.2.6", "192.0.2.8"]),
    ("0.0.0.0/0", ["192.0.2.7"], ["::", "::1", "example.com"]),
    ("2001:db8::/32", ["2001:db8::1", "2001:db8:ffff::"], ["2001:db9::", "32.1.13.184"]),
    ("::/0", ["::1", "2001:db8::1"], ["192.0.2.7", "example.com"]),
    ("*", ["example.com", "192.0.2.7", "::1", "."], []),
    ("127.1", ["127.1"], ["127.0.0.1"]),
]


@pytest.mark.parametrize(("rule", "around", "through"), RULES)
def test_a_rule_matches(rule, around, through):
    bypass = Bypass([rule])

    assert [host for host in around if not bypass.matches(host)] == []
    assert [host for host in through if bypass.matches(host)] == []


@pytest.mark.parametrize(("rule", "around", "through"), RULES)
def test_a_rule_matches_on_its_port_only(rule, around, through):
    bypass = Bypass(
        [f"[{rule}]:8080" if rule.count(":") > 1 and rule[0] != "[" else f"{rule}:8080"]
    )
    for host in around:
        assert bypass.matches(host, 8080)
        assert not bypass.matches(host, 80)
        assert not bypass.matches(host)
    for host in through:
        assert not bypass.matches(host, 8080)


def test_a_rule_without_a_port_matches_on_any():
    assert Bypass(["example.com"]).matches("example.com", 8080)


def test_any_of_the_rules_will_do():
    bypass = Bypass(["example.com:8080", "10.0.0.0/8", "example.org"])

    assert bypass.matches("example.org", 80)
    assert not bypass.matches("example.com", 80)


def test_no_rules_match_nothing():
    assert not Bypass([]).matches("localhost", 80)


@pytest.mark.parametrize(
    "rule",
    [
        "",
        ".",
        "*.",
        "a b",
        "example.com:",
        "example.com:http",
        "example.com:65536",
        "example.com:" + "9" * 5000,
        ":80",
        "[::1",
        "[::1]:",
        "10.0.0.0/",
        "10.0.0.0/33",
        "10.0.0.0/-1",
        "10.0.0.0/x",
        "10.0.0.0/8/8",
        "10.0.0.256/8",
        "2001:db8::/129",
        "[2001:db8::/32",
        "2001:db8::/32]:80",
        "::ffff:10.0.0.0/104",
        "example.com/8",
        "http://example.com",
        "<local>",
        "☃.example",
        ".*",
        "..*",
        "*.*",
        "**",
        "*/0",
        "[*]",
        "*.*:80",
        "*.*.example.com",
        "192.168.*",
        "192.168.",
        "10.",
        "10.:80",
        "exam*.com",
    ],
)
def test_a_rule_that_cannot_be_read_is_named(rule):
    with pytest.raises(InvalidArgumentError) as caught:
        Bypass(["example.com", rule])

    assert repr(rule) in str(caught.value)


def test_one_string_is_not_a_list_of_rules():
    with pytest.raises(TypeError, match="from_no_proxy"):
        Bypass("example.com")


class TestFromNoProxy:
    @pytest.mark.parametrize(
        "text", ["a.example,b.example", "a.example b.example", " ,a.example,\tb.example, "]
    )
    def test_rules_are_parted_by_commas_or_blanks(self, text):
        assert Bypass.from_no_proxy(text).rules == ("a.example", "b.example")

    def test_nothing_is_no_rule(self):
        assert Bypass.from_no_proxy("").rules == ()

    def test_what_cannot_be_read_is_skipped(self):
        """The variable is written for many programs; the rest of it still counts."""
        bypass = Bypass.from_no_proxy("<local>,::1,http://x/,[::1]:a,10.0.0.0/99,example.com")

        assert bypass.rules == ("::1", "example.com")

    @pytest.mark.parametrize("text", [".*", "*.*", "192.168.*", "10."])
    def test_what_cannot_be_read_never_means_everything(self, text):
        bypass = Bypass.from_no_proxy(f"example.com,{text}")

        assert bypass.rules == ("example.com",)
        assert not bypass.matches("example.org")

    @settings(deadline=None)
    @given(st.text())
    def test_any_text_is_some_rules(self, text):
        Bypass.from_no_proxy(text).matches("example.com", 80)


@settings(deadline=None)
@given(st.ip_addresses(v=4), st.integers(0, 32), st.ip_addresses(v=4))
def test_networks_are_those_of_ipaddress(address, prefix, other):
    import ipaddress

    network = ipaddress.ip_network(f"{address}/{prefix}", strict=False)

    assert Bypass([str(network)]).matches(str(address))
    assert Bypass([str(network)]).matches(str(other)) == (other in network)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST.",
        "www.localhost",
        "127.0.0.1",
        "127.255.0.3",
        "::1",
        "::ffff:127.1.2.3",
    ],
)
def test_loopback_is_what_never_leaves_this_machine(host):
    assert LOOPBACK.matches(host, 80)


@pytest.mark.parametrize("host", ["example.com", "localhost.example.com", "128.0.0.1", "::2", "::"])
def test_loopback_is_nothing_else(host):
    assert not LOOPBACK.matches(host, 80)


def test_its_repr_shows_the_rules_and_it_can_be_pickled():
    twin = pickle.loads(pickle.dumps(Bypass(["example.com", "10.0.0.0/8"])))

    assert repr(twin) == "Bypass(['example.com', '10.0.0.0/8'])"
    assert twin.matches("10.1.2.3")
