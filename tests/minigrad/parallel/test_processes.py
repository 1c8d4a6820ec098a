"""A team computes every item of a job once, whether its processes spin or sleep."""

import os
import signal
import time

import numpy as np
import pytest

from minigrad.parallel import WorkerError, shared_array
from minigrad.parallel import processes as team
from minigrad.parallel.processes import Processes, make_team

fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")


@fork
@pytest.mark.parametrize("awake", [0.0, 0.001, 5.0])
def test_every_item_is_done_once_and_before_run_returns(awake, monkeypatch):
    monkeypatch.setattr(team, "AWAKE", awake)
    monkeypatch.setattr(team, "available_cores", lambda: 3)
    done = shared_array(7, np.int64)

    def do(kind, payload, item):
        if item % 3 == 2:
            time.sleep(payload)  # so that others wait, spinning or sleeping
        done[item] += 1

    processes = make_team(do, 3, "processes")
    try:
        for job in range(1, 31):
            if job % 7 == 0:
                time.sleep(0.005)  # so that workers wait, spinning or sleeping
            processes.run("count", 0.003 if job % 5 == 0 else 0.0, 7)
            assert done.tolist() == [job] * 7
    finally:
        processes.close()


@fork
def test_who_would_wait_at_the_cost_of_others_sleeps_at_once(monkeypatch):
    monkeypatch.setattr(team, "available_cores", lambda: 2)
    for workers, stays_awake in ((2, True), (3, False)):
        processes = Processes(lambda kind, payload, item: None, workers)
        try:
            assert (processes._awake > 0) == stays_awake
        finally:
            processes.close()


@fork
def test_a_worker_that_dies_between_two_jobs_is_a_clear_error():
    processes = Processes(lambda kind, payload, item: None, 2)
    processes.run("nothing", None, 4)
    child = processes._children[0]
    os.kill(child.pid, signal.SIGKILL)
    child.join(10)
    with pytest.raises(WorkerError, match="was killed by signal 9"):
        processes.run("nothing", None, 4)


@fork
def test_an_exception_in_the_calling_process_leaves_the_workers_in_step():
    caller, done = os.getpid(), shared_array(1, np.int64)

    def do(kind, payload, item):
        if kind == "stop" and os.getpid() == caller:
            raise KeyboardInterrupt
        if kind == "count":
            done[0] += 1

    processes = Processes(do, 2)
    try:
        for expected in (1, 2, 3):
            with pytest.raises(KeyboardInterrupt):
                while True:  # the other worker may have taken all items
                    processes.run("stop", None, 2)
            processes.run("count", None, 1)
            assert done[0] == expected
    finally:
        processes.close()


@fork
@pytest.mark.parametrize("moment", ["_send", "_answer"])
def test_who_is_interrupted_while_others_work_goes_on_alone(moment, monkeypatch):
    """The others' answers must not be taken for those of the next job."""
    caller, done = os.getpid(), shared_array(4, np.int64)

    def do(kind, payload, item):
        if os.getpid() != caller:
            time.sleep(0.01)
        done[item] = payload

    def interrupted(*arguments):
        real(*arguments)
        raise KeyboardInterrupt

    processes = Processes(do, 2)
    try:
        real = getattr(processes, moment)
        with monkeypatch.context() as patch:
            patch.setattr(processes, moment, interrupted)
            with pytest.raises(KeyboardInterrupt):
                processes.run("write", 1, 4)
        children = processes._children
        for payload in (2, 3):
            processes.run("write", payload, 4)
            assert done.tolist() == [payload] * 4
        assert children == []
    finally:
        processes.close()
