"""Limiting BLAS to one thread, from several threads at the same time."""

import threading

import pytest
import threadpoolctl

from minigrad import blas
from minigrad.blas import OneBlasThread, find_blas


def threads():
    pools = threadpoolctl.threadpool_info()
    return [pool["num_threads"] for pool in pools if pool["user_api"] == "blas"]


@pytest.fixture
def two_threads():
    """BLAS uses two threads, if it can."""
    find_blas()
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        if 2 not in threads():
            pytest.skip("this BLAS has a single thread")
        yield
        assert 2 in threads()  # the previous number is restored after the test


def test_the_limit_ends_with_its_last_user_whoever_that_is(two_threads):
    first, second = OneBlasThread(), OneBlasThread()
    first.__enter__()
    second.__enter__()
    assert set(threads()) == {1}
    first.__exit__(None, None, None)
    assert set(threads()) == {1}  # the first thread has left the block, the other one has not
    second.__exit__(None, None, None)
    assert 2 in threads()


def test_it_may_be_entered_within_itself_and_after_an_error(two_threads):
    with pytest.raises(ZeroDivisionError), OneBlasThread(), OneBlasThread():
        raise ZeroDivisionError
    assert 2 in threads() and blas._users == 0


def test_many_threads_come_and_go(two_threads):
    wrong = []

    def work():
        for _ in range(200):
            with OneBlasThread():
                for library in blas._everybodys:
                    if library.get_num_threads() != 1:
                        wrong.append(library)

    everybody = [threading.Thread(target=work) for _ in range(4)]
    for thread in everybody:
        thread.start()
    for thread in everybody:
        thread.join()
    assert not wrong
    assert 2 in threads()
