"""Compares the drawing of tokens, through the CPU shim, with the sampler."""

from typing import Any

import numpy as np
import pytest

from tests.gpu.twins import PRECISIONS, SCHEDULES
from tests.tinyalpaca.tiny_models import tiny_tokenizer
from tinyalpaca.generation.cuda import draw
from tinyalpaca.generation.readable import Readable
from tinyalpaca.generation.sampling import Sampler, Sampling

ROUNDS = 3


class Rows:
    """Rows on the device, with `ROUNDS` uniform numbers each; the last row is unused."""

    def __init__(self, gpu: Any, uniform: np.ndarray, temperature: float, taken: int = 0) -> None:
        rows = uniform.shape[1]
        settings = np.concatenate(
            [uniform, np.full((1, rows), 1 / temperature if temperature else 0.0)]
        )
        places = np.arange(rows, dtype=np.int32) + 5
        places[-1] = -1
        self.settings = gpu.asarray(settings)
        self.places, self.ids = gpu.asarray(places), gpu.asarray(np.full(rows, 7, np.int32))
        self.taken = gpu.asarray(np.full(rows, taken, np.int32))
        self.chosen = gpu.asarray(np.full((ROUNDS, rows), -5, np.int32))

    def draw(self, logits: Any) -> None:
        where = {"ids": self.ids, "places": self.places, "taken": self.taken}
        draw.draw(logits, self.settings, **where, chosen=self.chosen)


class Given:
    """A random generator that returns given numbers."""

    def __init__(self, numbers: np.ndarray) -> None:
        self._numbers = iter(numbers.tolist())

    def random(self) -> float:
        return next(self._numbers)


def check(gpu: Any, logits: np.ndarray, uniform: np.ndarray, temperature: float) -> None:
    """Three rounds with the same logits. Also checks what the kernel sets for the next token."""
    rows = Rows(gpu, uniform, temperature)
    there = gpu.asarray(logits)
    sampler = Sampler(
        Sampling(temperature), [Given(u) for u in uniform.T], logits.shape[1], [[]] * len(logits)
    )
    for number in range(ROUNDS):
        rows.draw(there)
        wanted = np.array(sampler.pick(logits))
        wanted[-1] = -5  # the unused row
        np.testing.assert_array_equal(rows.chosen.get()[number], wanted)
        np.testing.assert_array_equal(rows.ids.get()[:-1], wanted[:-1])
    count = len(logits)
    assert rows.ids.get()[-1] == 7
    assert rows.places.get().tolist() == [*range(8, count + 7), -1]
    assert rows.taken.get().tolist() == [ROUNDS] * (count - 1) + [0]


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("vocabulary", [1, 2, 65, 255, 256, 257, 1000, 50257])
@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.5])
def test_tokens_are_the_samplers(
    gpu: Any, rng: Any, vocabulary: int, temperature: float, dtype: Any
) -> None:
    rows = 2 if vocabulary > 1000 else 9
    logits = (rng.standard_normal((rows, vocabulary)) * 3).astype(dtype)
    check(gpu, logits, rng.random((ROUNDS, rows)), temperature)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_under_every_schedule(gpu: Any, rng: Any, schedule: int) -> None:
    gpu.engine.schedule = schedule
    logits = rng.standard_normal((5, 600)).astype(np.float32)
    for temperature in (0.0, 1.0):
        check(gpu, logits, rng.random((ROUNDS, 5)), temperature)


def test_uniform_numbers_at_the_edges(gpu: Any, rng: Any) -> None:
    logits = rng.standard_normal((3, 300)).astype(np.float32)
    logits[:, :2] = logits[:, 298:] = -np.inf  # tokens of weight 0 are never chosen
    uniform = np.array([[0.0] * 3, [1 - 2.0**-53] * 3, [0.5] * 3])
    rows = Rows(gpu, uniform, 1.0)
    for _ in range(2):
        rows.draw(gpu.asarray(logits))
    assert rows.chosen.get()[0, :2].tolist() == [2, 2]
    assert rows.chosen.get()[1, :2].tolist() == [297, 297]


def test_of_equal_logits_the_first(gpu: Any) -> None:
    logits = np.zeros((3, 700), np.float32)
    logits[0, [699, 300, 301]] = 5
    check(gpu, logits, np.zeros((ROUNDS, 3)), 0.0)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("damage", ["nan", "inf", "-inf"])
def test_logits_that_are_not_numbers(gpu: Any, temperature: float, damage: str) -> None:
    logits = np.ones((3, 300), np.float32)
    logits[0, slice(None) if damage == "-inf" else 100] = float(damage)
    rows = Rows(gpu, np.full((ROUNDS, 3), 0.5), temperature)
    rows.draw(gpu.asarray(logits))
    assert rows.chosen.get()[0].tolist() == [-1, 0 if temperature == 0 else 150, -5]


def test_rounds_come_again(gpu: Any) -> None:
    """After the last uniform number the first one is used again, which the host has replaced."""
    logits = gpu.asarray(np.zeros((2, 100), np.float32))
    rows = Rows(gpu, np.array([[0.105] * 2, [0.505] * 2, [0.905] * 2]), 1.0, taken=5)
    for _ in range(2):
        rows.draw(logits)
    assert rows.chosen.get()[:, 0].tolist() == [10, -5, 90]
    assert rows.taken.get().tolist() == [7, 5]


@pytest.mark.parametrize("temperature", [0.0, 0.9])
@pytest.mark.parametrize("schedule", SCHEDULES[:2])
def test_only_what_may_come_is_chosen(
    gpu: Any, rng: Any, temperature: float, schedule: int
) -> None:
    """This depends on each text's state and on the number of tokens left, as in the sampler."""
    gpu.engine.schedule = schedule
    tokenizer = tiny_tokenizer()
    seen = rng.random(tokenizer.vocab_size) < 0.8
    readable = Readable(tokenizer, seen)
    prompts = [[], tokenizer.encode("é")[:1], tokenizer.encode("🦙")[:1], [1]]
    count, total = len(prompts), 6
    uniform = rng.random((total, count))
    sampler = Sampler(
        *(Sampling(temperature), [Given(u) for u in uniform.T]),
        *(tokenizer.vocab_size, prompts, readable, total),
    )
    for first in range(0, total, ROUNDS):
        rows = Rows(gpu, uniform[first : first + ROUNDS], temperature)
        rows.places = gpu.asarray(np.arange(count, dtype=np.int32))
        ends = np.full(count, total - first, np.int32)
        guide = gpu.asarray(np.stack([np.array(sampler.states, np.int32), ends]))
        rules = draw.Rules(
            gpu.asarray(readable.allowed.astype(np.int32)),
            gpu.asarray(readable.following.astype(np.int32)),
            guide,
        )
        for number in range(ROUNDS):
            logits = (rng.standard_normal((count, tokenizer.vocab_size)) * 3).astype(np.float32)
            where = {"ids": rows.ids, "places": rows.places, "taken": rows.taken}
            draw.draw(
                *(gpu.asarray(logits), rows.settings), **where, chosen=rows.chosen, rules=rules
            )
            assert rows.chosen.get()[number].tolist() == sampler.pick(logits)
            assert guide.get()[0].tolist() == sampler.states
    assert sampler.states == [0] * count
