"""Whether a model fits this machine's memory, before anything is allocated or read."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from math import prod
from pathlib import Path

from minigrad.parallel import number_of_lanes
from tinyalpaca.config import ConfigError, ModelConfig
from tinyalpaca.parameter_names import parameter_shapes

LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
NUMBER = 4  # bytes of a float32


def count_parameters(config: ModelConfig) -> int:
    """The parameters of `TinyAlpaca(config)`, whatever its sizes, without making any."""

    def count(layers: int) -> int:
        shapes = parameter_shapes(dataclasses.replace(config, num_layers=layers))
        return sum(prod(shape) for _, shape in shapes)

    layer = count(2) - count(1)
    shared = config.vocab_size * config.d_model if config.tie_weights else 0
    return count(1) + (config.num_layers - 1) * layer - shared


def check_memory(config: ModelConfig) -> None:
    """Raise `ConfigError` if weights, gradients and optimizer cannot fit into the memory.

    Activations need more memory on top, which is not estimated.
    """
    parameters = count_parameters(config)
    copies = 1 + number_of_lanes(parameters * NUMBER) + 2  # weights, gradients, averages
    needed, there = parameters * NUMBER * copies, memory_of_machine()
    if there is not None and needed > there:
        raise ConfigError(
            f"this model has {parameters:,} parameters; to train it takes at least "
            f"{needed / 1e9:,.1f} GB (weights, gradients, averages of the optimizer) and this "
            f"machine has {there / 1e9:,.1f} GB. Make --d-model, --d-ff, --num-layers or the "
            "vocabulary smaller"
        )


def memory_of_machine() -> int | None:
    """Bytes of memory that this process may use at most; None where it is not known."""
    known = []
    with contextlib.suppress(AttributeError, ValueError, OSError):
        known.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for path in LIMITS:  # of a container; "max" where there is none
        with contextlib.suppress(OSError, ValueError):
            known.append(int(Path(path).read_text(encoding="ascii")))
    return min(known, default=None)
