import multiprocessing
import os

import pytest

from minigrad.parallel import WorkerError
from minigrad.parallel.fork import in_a_process, in_processes

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


def test_results_come_in_order_from_different_processes():
    results = in_processes(lambda number: (number, os.getpid()), 3)
    assert [number for number, _ in results] == [0, 1, 2]
    assert results[0][1] == os.getpid()
    assert len({pid for _, pid in results}) == 3


def test_one_is_done_here():
    assert in_processes(lambda number: os.getpid(), 1) == [os.getpid()]


def test_an_exception_in_another_process_is_raised_here():
    def work(number: int) -> None:
        if number == 1:
            raise ValueError("logits are not finite")

    with pytest.raises(ValueError, match="not finite"):
        in_processes(work, 2)


def test_a_process_that_dies_is_noticed():
    def work(number: int) -> None:
        if number == 1:
            os._exit(3)

    with pytest.raises(WorkerError, match="has died"):
        in_processes(work, 2)


def test_an_exception_here_ends_the_others():
    reading, writing = os.pipe()

    def work(number: int) -> None:
        if number == 0:
            raise KeyboardInterrupt
        os.read(reading, 1)  # forever

    before = multiprocessing.active_children()
    with pytest.raises(KeyboardInterrupt):
        in_processes(work, 2)
    assert multiprocessing.active_children() == before
    os.close(reading)
    os.close(writing)


def test_the_memory_of_work_done_apart_is_not_kept():
    largest = []

    def work() -> int:
        largest.append(bytearray(10**6))
        return len(largest)

    assert in_a_process(work) == 1
    assert not largest


def test_work_done_apart_fails_like_work_done_here():
    def work() -> None:
        raise ValueError("no such size")

    with pytest.raises(ValueError, match="no such size"):
        in_a_process(work)
    with pytest.raises(WorkerError, match="has died"):
        in_a_process(lambda: os._exit(3))


def _from_a_daemon(pipe) -> None:
    pipe.send((multiprocessing.current_process().daemon, len(set(in_processes(_pid, 3)))))


def _pid(number: int) -> int:
    return os.getpid()


def test_a_daemonic_process_shares_its_work_too():
    """Such as a pool's worker that generates texts. `multiprocessing` allows it no children."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    daemon = context.Process(target=_from_a_daemon, args=(theirs,), daemon=True)
    daemon.start()
    theirs.close()
    assert ours.recv() == (True, 3)
    daemon.join(30)
    assert daemon.exitcode == 0
