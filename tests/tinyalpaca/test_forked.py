import multiprocessing
import os

import pytest

from minigrad.parallel import WorkerError
from tests.tinyalpaca.tiny_models import tiny_model
from tinyalpaca.generating.batch_decoder import ENOUGH_SEQUENCES, BatchDecoder
from tinyalpaca.generating.forked import in_processes
from tinyalpaca.generating.inference import CachedDecoder
from tinyalpaca.generating.ready_model import ReadyModel

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


@pytest.mark.parametrize(
    ("sequences", "heads", "kind"),
    [
        (ENOUGH_SEQUENCES - 1, 3, CachedDecoder),
        (ENOUGH_SEQUENCES, 3, BatchDecoder),
        (ENOUGH_SEQUENCES, 1, CachedDecoder),
    ],
)
def test_many_sequences_of_small_heads_are_columns(sequences, heads, kind):
    model = tiny_model(d_model=48, d_ff=8, num_heads=heads)  # a head of 48 is not small
    decoder = ReadyModel(model, 30, graph=False).decoder([[1, 2]] * sequences, 5)
    assert type(decoder) is kind
