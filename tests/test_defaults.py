"""The default proxy, of the process and of a block."""

import asyncio
import contextvars
import threading

import pytest

from socksy.defaults import (
    get_default_proxy,
    get_own_default,
    set_default_proxy,
    set_patched_default,
    using,
)
from socksy.errors import InvalidProxyError
from socksy.proxy import Proxy

NEAR, FAR = Proxy.from_url("socks5h://near"), Proxy.from_url("socks5h://far")


@pytest.fixture(autouse=True)
def _no_default():
    yield
    set_default_proxy(None)


def seen_by_a_thread():
    seen = []
    thread = threading.Thread(target=lambda: seen.append(get_default_proxy()))
    thread.start()
    thread.join()
    return seen[0]


def choose(host, port):
    return None


def test_there_is_none_at_first():
    assert get_default_proxy() is None


@pytest.mark.parametrize(
    ("proxy", "route"),
    [
        ("socks5h://near", (NEAR,)),
        (NEAR, (NEAR,)),
        ([NEAR, "socks5h://far"], (NEAR, FAR)),
        (choose, choose),
        (None, None),
    ],
)
class TestAnyKindOfProxy:
    def test_can_be_the_default_of_the_process(self, proxy, route):
        set_default_proxy(proxy)

        assert get_default_proxy() == route
        assert seen_by_a_thread() == route

    def test_can_be_the_default_of_a_block(self, proxy, route):
        set_default_proxy("socks5h://process")
        with using(proxy) as here:
            assert here == route
            assert get_default_proxy() == route
        assert get_default_proxy() == (Proxy.from_url("socks5h://process"),)


@pytest.mark.parametrize("setting", [set_default_proxy, using])
def test_what_is_no_proxy_is_refused_and_changes_nothing(setting):
    set_default_proxy(NEAR)
    with pytest.raises(InvalidProxyError):
        setting("socks5h://")
    with pytest.raises(TypeError):
        setting(8080)

    assert get_default_proxy() == (NEAR,)


def test_below_lies_the_way_of_a_patch():
    """Which does not hear of itself."""
    set_patched_default(choose)
    try:
        assert get_default_proxy() is choose
        assert get_own_default() is None
        with using(None):
            assert get_default_proxy() is None
        set_default_proxy(NEAR)
        assert get_default_proxy() == get_own_default() == (NEAR,)
        with using(FAR):
            assert get_default_proxy() == get_own_default() == (FAR,)
    finally:
        set_patched_default(None)


def test_blocks_nest():
    with using(NEAR):
        with using(None):
            assert get_default_proxy() is None
            with using(FAR):
                assert get_default_proxy() == (FAR,)
            assert get_default_proxy() is None
        assert get_default_proxy() == (NEAR,)
    assert get_default_proxy() is None


def test_one_object_can_be_entered_again():
    near = using(NEAR)
    with near, using(FAR), near:
        assert get_default_proxy() == (NEAR,)
    with near:
        assert get_default_proxy() == (NEAR,)
    assert get_default_proxy() is None


def test_a_block_is_left_by_an_error_too():
    with pytest.raises(ZeroDivisionError), using(NEAR):
        _ = 1 / 0

    assert get_default_proxy() is None


def test_a_block_does_not_reach_other_threads():
    with using(NEAR):
        assert seen_by_a_thread() is None


def test_tasks_differ_and_inherit():
    async def task(proxy):
        with using(proxy):
            await asyncio.sleep(0)
            inherited = await asyncio.create_task(child())
            return get_default_proxy(), inherited

    async def child():
        return get_default_proxy()

    async def main():
        return await asyncio.gather(task(NEAR), task(FAR), child())

    assert asyncio.run(main()) == [((NEAR,),) * 2, ((FAR,),) * 2, None]


def test_a_block_can_be_left_in_another_context_than_it_was_entered():
    """As asynchronous fixtures and generators do."""
    block = using(NEAR)
    entered = contextvars.copy_context()
    entered.run(block.__enter__)
    block.__exit__(None, None, None)

    assert get_default_proxy() is None
    assert entered.run(get_default_proxy) == (NEAR,)


def test_leaving_out_of_order_takes_away_no_other_blocks_proxy():
    """A generator that ends in another block must not make that block's connections direct."""

    def in_a_block():
        with using(FAR):
            yield

    suspended = in_a_block()
    next(suspended)
    with using(NEAR):
        next(suspended, None)

        assert get_default_proxy() == (NEAR,)
    assert get_default_proxy() is None


def test_leaving_in_a_context_with_blocks_of_its_own_leaves_those_alone():
    """What was entered elsewhere is not here to be left."""
    block = using(FAR)
    contextvars.copy_context().run(block.__enter__)
    with using(NEAR):
        block.__exit__(None, None, None)

        assert get_default_proxy() == (NEAR,)
