"""Several threads compute at once; their results are bitwise identical to those of one thread."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import minigrad
import minigrad as mg
from minigrad import Tensor, functional, nn, optim
from minigrad.blas import OneBlasThread
from minigrad.nn import functional as F
from minigrad.state import STATE, first_order
from minigrad.storage import load_safetensors, save_safetensors
from tests.at_once import assert_equal, at_once

THREADS = 4


def perceptron(rng: mg.Generator) -> nn.Module:
    return nn.Sequential(
        *(nn.Linear(6, 16, rng=rng), nn.LayerNorm(16), nn.GELU(), nn.Dropout(0.2, rng=rng)),
        *(nn.Linear(16, 12, rng=rng), nn.RMSNorm(12), nn.SiLU(), nn.Linear(12, 5, rng=rng)),
    )


def convolutions(rng: mg.Generator) -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 3, 3, padding=1, rng=rng), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(3, 5, rng=rng)),
    )


class Transformer(nn.Module):
    """An embedding, attention and a head that shares the embedding's weights."""

    def __init__(self, rng: mg.Generator) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 8, rng=rng)
        self.qkv = nn.Linear(8, 24, rng=rng)

    def forward(self, ids: Any) -> Tensor:  # (B, T) -> (B, T, V)
        x = self.embedding(ids)
        q, k, v = mg.split(self.qkv(x).reshape(*ids.shape, 6, 4).swapaxes(1, 2), 3, axis=1)
        mixed = F.scaled_dot_product_attention(q, k, v, causal=True)
        return (x + mixed.swapaxes(1, 2).reshape(x.shape)) @ self.embedding.weight.T


def trained(number: int) -> list[np.ndarray]:
    """Losses and weights of a model, after some steps that depend on the thread's number."""
    rng, numbers = mg.Generator(number), np.random.default_rng(number)
    targets = numbers.integers(0, 5, 7)
    make, x = [
        (perceptron, Tensor(numbers.standard_normal((7, 6), np.float32))),
        (convolutions, Tensor(numbers.standard_normal((7, 1, 2, 2), np.float32))),
        (Transformer, np.tile(targets, (2, 1))),
    ][number % 3]
    model = make(rng)
    if number % 3 == 2:
        targets = np.tile(np.roll(targets, 1), (2, 1))
    kinds: list[Any] = [optim.AdamW, optim.Muon, optim.SGD]
    optimizer = kinds[number % len(kinds)](model.parameters(), lr=0.05)
    schedule = optim.CosineAnnealingLR(optimizer, 8)
    losses = []
    for step in range(6):
        optimizer.zero_grad()
        with rng.seeded(number, step):
            loss = F.cross_entropy(model(x).reshape(-1, 5), targets.reshape(-1))
        loss.backward()
        optim.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.numpy())
    return losses + list(model.state_dict().values())


def test_models_that_are_trained_in_threads_learn_what_each_learns_alone() -> None:
    with OneBlasThread():
        alone = [trained(number) for number in range(6)]
        assert_equal(at_once(trained, 6), alone)


def switched(number: int) -> list[Any]:
    """The settings inside and between blocks that change them, in another order in each thread."""
    blocks = [mg.no_grad(), mg.textbook(), mg.detect_nan(), first_order(), mg.enable_grad()]
    x = mg.ones(3, requires_grad=True)
    seen: list[Any] = []
    for turn in range(40):
        with blocks[(number + turn) % 5], blocks[(number * turn + 1) % 5]:
            y = x * 2
            kind = None if y.node is None else y.node.xp is np
            seen.append((STATE.grad_enabled, STATE.textbook, STATE.detect_nan, kind))
        seen.append((STATE.grad_enabled, STATE.textbook, STATE.detect_nan, STATE.keep_inputs))
    return seen


def test_a_threads_switches_are_not_seen_by_the_others() -> None:
    alone = [switched(number) for number in range(THREADS)]
    assert at_once(switched) == alone


def test_threads_share_blocks_and_decorated_functions() -> None:
    block = mg.no_grad()
    x = mg.ones(2, requires_grad=True)

    @mg.no_grad
    def inside() -> bool:
        return (x * 2).requires_grad

    @mg.no_grad
    def pieces() -> Iterator[bool]:
        for _ in range(3):
            yield (x * 2).requires_grad

    def work(number: int) -> list[bool]:
        seen = []
        for _ in range(50):
            if number % 2:
                with block, block:
                    seen.append((x * 2).requires_grad)
                seen.append(inside())
                for one in pieces():
                    seen += [one, not (x * 2).requires_grad]
            seen.append(not (x * 2).requires_grad)
        return seen

    assert not any(any(seen) for seen in at_once(work))
    assert STATE.grad_enabled


def derived(number: int) -> list[np.ndarray]:
    """Gradients, a Hessian and its products with vectors, of a function that depends on number."""
    power = number + 2
    x = Tensor(np.linspace(0.5, 2.0, 4), requires_grad=True)

    def f(x: Tensor) -> Tensor:
        return (mg.sin(x) ** power).sum() * x.mean()

    first = mg.grad(f(x), x, create_graph=True)
    second = mg.grad((first**2).sum(), x)
    (f(x) + f(x * 2)).backward()
    assert x.grad is not None
    hessian = functional.hessian(f)(x.detach())
    return [value.numpy() for value in (first.detach(), second, x.grad, hessian)]


def test_derivatives_of_any_order() -> None:
    with OneBlasThread():
        alone = [derived(number) for number in range(THREADS)]
        assert_equal(at_once(derived), alone)


def test_one_frozen_model_gives_each_thread_the_gradients_of_its_own_inputs() -> None:
    model = perceptron(mg.Generator(0)).eval().requires_grad_(False)

    def work(number: int) -> list[np.ndarray]:
        x = Tensor(np.random.default_rng(number).standard_normal((7, 6)), requires_grad=True)
        results = []
        for _ in range(5):
            y = model(x)
            results += [y.detach().numpy(), mg.grad((y * y).sum(), x).numpy()]
        return results

    with OneBlasThread():
        alone = [work(number) for number in range(THREADS)]
        assert_equal(at_once(work), alone)


def test_arrays_are_handed_out_while_others_differentiate() -> None:
    """The engine watches those arrays, and looks at all of them in each backward pass."""
    for _ in range(10):
        w = mg.ones(64) * 2
        assert (mg.ones(64, requires_grad=True) * w).requires_grad  # a node reads it

        def work(number: int, w: Tensor = w) -> list[np.ndarray]:
            if number % 2:
                return [w[first:].numpy() for first in range(60)]
            for _ in range(10):
                x = mg.ones(64, requires_grad=True)
                assert mg.grad((x * w).sum(), x).tolist() == [2] * 64
            return []

        assert [len(handed_out) for handed_out in at_once(work)] == [0, 60, 0, 60]


def test_threads_that_share_a_model_change_its_mode() -> None:
    """Workers do so when each evaluates a part of a batch. They need not wait for each other: if a
    thread finds the model in the right mode, all of its parts are in that mode."""
    rounds = [(perceptron(mg.Generator(0)), threading.Barrier(THREADS)) for _ in range(40)]

    def work(number: int) -> None:
        for model, together in rounds:
            for mode in (False, True):
                together.wait(10)
                if model.training is not mode:
                    model.train(mode)
                assert {module.training for module in model.modules()} == {mode}
                assert len(model.state_dict()) == 9

    at_once(work)


def test_a_shared_random_generator_gives_each_thread_the_numbers_of_its_key() -> None:
    rng = mg.Generator(3)

    def work(number: int) -> list[np.ndarray]:
        drawn = []
        for step in range(20):
            with rng.seeded(number, step):
                drawn += [rng.normal(5).numpy(), F.dropout(mg.ones(9), 0.5, rng=rng).numpy()]
        return drawn

    alone = [work(number) for number in range(THREADS)]
    assert_equal(at_once(work), alone)


def test_an_error_in_one_thread_leaves_the_others_alone() -> None:
    def work(number: int) -> int:
        raised = 0
        for _ in range(20):
            x = Tensor([float(number)], requires_grad=True)
            try:
                with np.errstate(all="ignore"), mg.detect_nan() if number % 2 else mg.no_grad():
                    assert mg.log(x - 1).requires_grad == bool(number % 2)
            except mg.NonFiniteError:
                raised += 1
            assert STATE.grad_enabled and not STATE.detect_nan
        return raised

    assert at_once(work) == [0, 20, 0, 0], "the logarithm of 0 is an error where one is asked for"


def test_each_thread_writes_and_reads_its_own_file(tmp_path: Path) -> None:
    def work(number: int) -> list[np.ndarray]:
        path, found = tmp_path / f"{number}.safetensors", []
        for step in range(5):
            save_safetensors({"w": np.full(9, number + step / 8, np.float32)}, path)
            found.append(load_safetensors(path)[0]["w"].copy())
        return found

    alone = [work(number) for number in range(THREADS)]
    assert_equal(at_once(work), alone)


FIRST_USE = """
import sys, threading
sys.setswitchinterval(1e-6)
ready, results = threading.Barrier(4), []

def work():
    ready.wait()
    import numpy as np
    import minigrad as mg
    from minigrad.blas import OneBlasThread
    x = mg.Tensor(np.linspace(-1, 1, 24, dtype=np.float32).reshape(1, 2, 4, 3), requires_grad=True)
    with OneBlasThread():
        y = mg.nn.functional.scaled_dot_product_attention(x, x, x, causal=True)
        y = mg.nn.functional.gelu(mg.nn.functional.softmax(y)) + np.where(x > 0, x, 0)
        mg.einsum("abij,abkj->abik", y, y).sum().backward()
    results.append(x.grad.numpy().tobytes())

threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert len(results) == 4 and len(set(results)) == 1, results
"""


def test_the_first_use_may_be_in_several_threads() -> None:
    """Modules are imported, and tables are made, at first use."""
    environment = {**os.environ, "PYTHONPATH": str(Path(minigrad.__file__).parents[1])}
    command = [sys.executable, "-W", "error", "-c", FIRST_USE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr
