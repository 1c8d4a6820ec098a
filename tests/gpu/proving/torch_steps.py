"""PyTorch's contenders on a GPU: the same model and the same step in three modes.

- "eager": fused attention, fused AdamW;
- "compiled": `torch.compile(mode="reduce-overhead")` of forward, loss and backward, fused AdamW;
- "graph": a whole step, captured by hand as one `torch.cuda.CUDAGraph`, fused AdamW.

fp32 and tf32 set the precision of float32 matmuls; bf16 is autocast.
"""

from __future__ import annotations

import gc
import time
from typing import Any

import torch
from torch.nn import functional as F

from tests.benchmarks.torch_peer import Model
from tests.benchmarks.workloads import LEARNING_RATE, Workload, make_batch, make_model

MODES = ("eager", "compiled", "graph")
WARM_UP = 4  # steps; compiled graphs need three before they are only replayed


class TorchSteps:
    """Training steps on one batch.

    Args:
        workload: see `Workload`.
        mode: one of `MODES`.
        device: "cuda", or "cpu" to try the model.
    """

    def __init__(self, workload: tuple[int, ...], mode: str, device: str = "cuda") -> None:
        if mode not in MODES:
            raise ValueError(f"there is no mode {mode!r}: choose from {', '.join(MODES)}")
        self.workload, self.mode, self.device = Workload(*workload), mode, torch.device(device)
        self.weights = {
            name: torch.from_numpy(value)
            for name, value in make_model(self.workload).state_dict().items()
        }
        self.batch = [torch.from_numpy(a.copy()).to(self.device) for a in make_batch(self.workload)]
        self.model: Any = None
        self.optimizer: Any = None
        self._graph: Any = None
        self._loss: Any = None
        self._result: Any = None
        self._run: Any = None

    def prepare(self, precision: str) -> dict[str, Any]:
        """Make a new model, compile and capture its step. Returns the first loss."""
        self.model = self.optimizer = self._loss = None
        self._graph = self._result = self._run = None  # so that their memory can be freed
        gc.collect()
        if self.device.type == "cuda":
            torch.compiler.reset()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")
        self.bf16 = precision == "bf16"
        self.model = Model(self.workload)
        self.model.load_state_dict(self.weights)
        self.model.to(self.device)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=LEARNING_RATE,
            fused=True,
            capturable=self.mode == "graph",
        )
        self._loss = self._mean_loss
        if self.mode == "compiled":
            self._loss = torch.compile(self._mean_loss, mode="reduce-overhead")
        self._run = self._step
        if self.mode == "graph":
            return {"loss": self._capture()}
        loss = self._run().item()
        for _ in range(WARM_UP):
            self._run()
        self._wait()
        return {"loss": loss}

    def _mean_loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=self.bf16, cache_enabled=False
        ):
            logits = self.model(x)
            return F.cross_entropy(logits.view(-1, logits.shape[-1]), y.view(-1))

    def _step(self) -> torch.Tensor:
        """Forward, cross-entropy, backward, clipping and AdamW, without waiting for the GPU."""
        if self.mode == "compiled":
            torch.compiler.cudagraph_mark_step_begin()
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._loss(*self.batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss.detach()

    def _capture(self) -> float:
        """Capture a step as one graph; returns the loss of the first step, made before that."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            loss = self._step().item()
            for _ in range(WARM_UP):
                self._step()
        torch.cuda.current_stream().wait_stream(side)
        self.optimizer.zero_grad(set_to_none=True)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._result = self._step()
        self._run = self._graph.replay
        self._run()
        self._wait()
        return loss

    def turn(self, count: int) -> float:
        """Make `count` steps; returns the seconds per step."""
        self._wait()
        began = time.perf_counter()
        for _ in range(count):
            self._run()
        self._wait()
        return (time.perf_counter() - began) / count

    def memory(self) -> dict[str, float]:
        """Peak MB since `prepare`: of tensors, and of all memory that the allocator held."""
        return {
            "held": torch.cuda.max_memory_reserved() / 2**20,
            "of tensors": torch.cuda.max_memory_allocated() / 2**20,
        }

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
