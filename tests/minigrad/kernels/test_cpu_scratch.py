import threading

import numpy as np

from minigrad.kernels.cpu.scratch import clear, scratch
from minigrad.state import STATE

F32, F64 = np.dtype(np.float32), np.dtype(np.float64)


def test_same_memory_again_but_not_across_names_and_dtypes():
    clear()
    large = scratch("a", (4, 5), F32)
    assert large.shape == (4, 5)
    assert large.dtype == F32
    assert large.flags.c_contiguous
    assert np.shares_memory(large, scratch("a", (3,), F32))
    assert not np.shares_memory(large, scratch("b", (3,), F32))
    assert not np.shares_memory(large, scratch("a", (3,), F64))
    assert not np.shares_memory(large, scratch("a", (5, 5), F32))
    clear()
    assert not STATE.buffers


def test_each_thread_has_its_own():
    mine = scratch("a", (3,), F32)
    others = []
    thread = threading.Thread(target=lambda: others.append(scratch("a", (3,), F32)))
    thread.start()
    thread.join()
    assert not np.shares_memory(mine, others[0])
