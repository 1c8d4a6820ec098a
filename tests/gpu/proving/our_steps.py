"""minigrad's contender on a GPU: training steps as the trainer makes them."""

from __future__ import annotations

import gc
import time
import warnings
from typing import Any

import numpy as np

from minigrad import optim, set_precision
from minigrad.device import cupy
from minigrad.kernels.cuda.gemm import set_library
from minigrad.optim.flat import FlatParameters
from tests.benchmarks.workloads import LEARNING_RATE, Workload, make_batch, make_model
from tests.gpu.proving.equality import told
from tinyalpaca.config import TrainConfig
from tinyalpaca.training.device_steps import DeviceSteps
from tinyalpaca.training.loss import Loss

MOST = 500  # steps in a turn at most


class OurSteps:
    """Training steps on one batch, which each step gathers from the tokens again.

    Args:
        workload: see `Workload`.
        graph: whether a step is one CUDA graph; otherwise its kernels are launched one by one.
        library: what computes matmuls; see `minigrad.kernels.cuda.gemm`.
    """

    def __init__(self, workload: tuple[int, ...], graph: bool, library: str = "auto") -> None:
        set_library(library)
        self.workload, self.graph = Workload(*workload), graph
        self.steps: DeviceSteps | None = None
        self.updates = 0

    def prepare(self, precision: str) -> dict[str, Any]:
        """Make a new model, compile and capture its step. Returns the first loss, and facts."""
        self._build(precision)
        assert self.steps is not None
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            self.turn(5)
        loss = self.steps.look().of(0)[0]
        return {"loss": loss, "graphs": self.steps.graphs, "why not": told(found)}

    def first_step(self, precision: str) -> float:
        """Make a new model and one step; returns the seconds of the step."""
        self._build(precision)
        return self.turn(1)

    def _build(self, precision: str) -> None:
        self.steps = None
        gc.collect()
        cupy().get_default_memory_pool().free_all_blocks()
        set_precision(precision)
        w, x_and_y = self.workload, make_batch(self.workload)
        model = make_model(w)
        model.to("gpu")
        optimizer = optim.AdamW(model.parameters(), lr=LEARNING_RATE)
        starts = np.arange(w.batch) * (w.time + 1)
        self.steps = DeviceSteps(
            FlatParameters(optimizer.parameters()),
            optimizer,
            Loss(model, TrainConfig(batch_size=w.batch, seq_len=w.time + 1)).on_device,
            tokens=np.concatenate([x_and_y[0], x_and_y[1][:, -1:]], axis=1).reshape(-1),
            time=w.time,
            windows=w.batch * MOST,
            rates=np.full((1, MOST), LEARNING_RATE),
            ring=MOST,
            max_norm=1.0,
            graph=self.graph,
        )
        self.steps.set_windows(np.tile(starts, MOST))
        self.steps.compile([w.batch])
        self.updates = 0

    def turn(self, count: int) -> float:
        """Make `count` steps; returns the seconds per step.

        Raises:
            RuntimeError: a step was not finite.
        """
        assert self.steps is not None
        self.steps.set_position(0, updates=self.updates, draw=0)
        self.steps.look()  # waits for the GPU, so that nothing runs when the clock starts
        began = time.perf_counter()
        for _ in range(count):
            self.steps.launch([self.workload.batch])
        progress = self.steps.look()
        seconds = time.perf_counter() - began
        if progress.halted or progress.step != count:
            raise RuntimeError(f"{progress.step} of {count} steps: {progress.losses[:5]}")
        self.updates += count
        return seconds / count

    def memory(self) -> dict[str, float]:
        """MB that CuPy's pools hold: the pool of all arrays, and the pools of graphs."""
        assert self.steps is not None
        arrays = cupy().get_default_memory_pool().total_bytes()
        graphs = self.steps.graph_bytes
        return {
            "held": (arrays + graphs) / 2**20,
            "of arrays": arrays / 2**20,
            "of graphs": graphs / 2**20,
        }
