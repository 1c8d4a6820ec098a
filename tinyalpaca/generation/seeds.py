"""Random numbers for prompts and their samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

Seed = int | Sequence[int] | None


def seeds_of(seed: Seed, count: int) -> list[int | None]:
    """A seed for each of `count` prompts.

    Raises:
        TypeError: a seed is no integer.
        ValueError: the number of seeds is not the number of prompts.
    """
    if seed is None or isinstance(seed, int | np.integer):
        return [seed] * count
    if not hasattr(seed, "__len__") or not all(isinstance(s, int | np.integer) for s in seed):
        raise TypeError(f"seed must be an integer, or one for each prompt, not {seed!r:.60}")
    if len(seed) != count:
        raise ValueError(
            f"{len(seed)} seeds for {count} prompts: give one for each, or one for all"
        )
    return list(seed)


def sample_rngs(seed: int | None, num_samples: int) -> Iterator[np.random.Generator]:
    """A random generator for each sample of a prompt. The first one is that of the seed itself.

    Raises:
        ValueError: the seed is negative.
    """
    if seed is not None and seed < 0:
        raise ValueError(f"seed must not be negative, it is {seed}")
    source = np.random.SeedSequence(seed)
    yield np.random.default_rng(source)
    for child in source.spawn(num_samples - 1):
        yield np.random.default_rng(child)
