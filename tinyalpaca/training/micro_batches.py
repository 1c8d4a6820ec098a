"""How many sequences a micro-batch has: by a rule, or measured on request.

The size decides in which order gradients are added up, so it affects their last bits, and the
dropout masks. Therefore the rule depends only on sizes: not on clocks, caches, cores or workers.
The same settings give the same size everywhere.
"""

from __future__ import annotations

import contextlib
import platform
from math import ceil

import numpy as np

from minigrad.parallel import MAX_LANES, Workers
from tinyalpaca.config import ModelConfig, TrainConfig
from tinyalpaca.data.corpora import cache_folder
from tinyalpaca.model import TinyAlpaca
from tinyalpaca.training.calibration import choose_micro_batch, remembered

# Each op costs some microseconds of Python whatever its size. From this much arithmetic a layer on,
# and from this many rows in a product, that is a few percent of the time (measured at the three
# workloads of tests/benchmarks, and at narrower, wider and longer ones).
LAYER_OPERATIONS = 300e6
TOKENS = 384


def micro_batch_size(model: ModelConfig, batch_size: int, time: int) -> int:
    """Sequences of a micro-batch, by rule.

    The batch is halved at least once, so that two workers have something to do. It is halved again
    as long as the parts are large enough: small parts can be shared better and need less cache,
    large ones spend less time in Python. More parts than gradient accumulators help no worker, so
    these must be twice as large.

    Args:
        model: its sizes.
        batch_size: sequences of a batch.
        time: predictions of a sequence.

    >>> micro_batch_size(ModelConfig(vocab_size=512), batch_size=32, time=127)
    8
    """
    rows = max(ceil(TOKENS / time), ceil(LAYER_OPERATIONS / layer_operations(model, time)))
    parts = 2
    while ceil(batch_size / (2 * parts)) >= rows * (1 if parts < MAX_LANES else 2):
        parts *= 2
    return ceil(batch_size / parts)


def layer_operations(model: ModelConfig, time: int) -> int:
    """Additions and multiplications in a layer's matmuls, for a training step of one sequence.

    There are two for each weight and token forward and twice as many backward. The same holds for
    attention's scores and sums, where a token sees half of all tokens on average.
    """
    c, f, heads = model.d_model, model.d_ff, model.num_heads
    ffn = 3 * c * f if model.activation == "swiglu" else 2 * c * f
    width = heads * model.size_of_head  # of all queries
    projections = 2 * c * width + 2 * c * model.kv_heads * model.size_of_head
    return 6 * time * (projections + ffn + time * width)


def calibrated_micro_batch(engine: Workers, model: TinyAlpaca, config: TrainConfig) -> int:
    """The size for a run that gives none: by the rule, or measured on request."""
    if config.measure_micro_batch:
        return measured_micro_batch(engine, model.config, config)
    return micro_batch_size(model.config, config.batch_size, config.seq_len - 1)


def measured_micro_batch(engine: Workers, model: ModelConfig, config: TrainConfig) -> int:
    """The size that is fastest for this model on this machine, measured once and remembered."""
    count, time = config.batch_size, config.seq_len - 1

    def run(size: int) -> None:
        ids = np.arange(size * time).reshape(size, time) % model.vocab_size
        engine.try_micro_batch((ids, ids))

    machine = f"{platform.machine()} {processor_name()}, NumPy {np.__version__}"
    work = f"{model}, {count} x {time} tokens, {engine.workers} workers"
    return remembered(
        cache_folder() / "micro_batch_sizes.json",
        f"{machine}: {work}",
        lambda: engine.measure(lambda: choose_micro_batch(run, count, engine.workers)),
    )


def processor_name() -> str:
    """The processor's name as the system gives it; "" where it does not."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()
