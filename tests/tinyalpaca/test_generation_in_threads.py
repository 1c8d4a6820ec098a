"""Several threads write texts at once, and each gets what it would get alone."""

from typing import Any

import numpy as np
import pytest

from minigrad import Generator as RandomGenerator
from minigrad import nn, optim
from minigrad.nn import functional as F
from tests.at_once import assert_equal, at_once
from tests.tinyalpaca.tiny_models import LLAMA, TEXT, tiny_generator, tiny_model, tiny_tokenizer
from tinyalpaca.config import ModelConfig
from tinyalpaca.generation import Generator
from tinyalpaca.generation.as_written import Structure
from tinyalpaca.generation.uncached import evaluating
from tinyalpaca.model import TinyAlpaca
from tinyalpaca.tokenizer import BPETokenizer

PROMPTS = ["the cat", "the hat and", "naïve 🦙", "that"]


def written(generator: Generator, number: int) -> list[Any]:
    """A text, several, a stream and a score, of a prompt that depends on the number."""
    prompt = PROMPTS[number % len(PROMPTS)]
    return [
        generator.generate(prompt, 12, temperature=0),
        generator.generate(prompt, 12, seed=number, top_p=0.9, return_logprobs=True),
        generator.generate(PROMPTS, 6, seed=number, num_samples=2),
        "".join(generator.stream(prompt, 12, seed=number, stop=["bat"])),
        generator.score(TEXT[:60]),
    ]


@pytest.mark.parametrize("options", [{}, LLAMA], ids=["original", "llama"])
def test_generators_of_their_own(options: dict[str, Any]) -> None:
    def work(number: int) -> list[Any]:
        return written(tiny_generator(seed=number, **options), number)

    alone = [work(number) for number in range(4)]
    assert_equal(at_once(work), alone)


KINDS: dict[str, dict[str, Any]] = {
    "folded": {},
    "not folded": LLAMA,
    "left in training mode": {"dropout": 0.5},
    "a class of its own": {},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:generation runs the whole model")
def test_one_generator_for_all(kind: str) -> None:
    """The first texts find nothing prepared, and prepare it at the same time."""

    def new() -> Generator:
        generator = tiny_generator(**KINDS[kind])
        if kind == "left in training mode":
            for module in generator.model.modules():
                del module.training  # it is the class's, as in a model that was never put in a mode
        if kind == "a class of its own":
            generator.model.__class__ = type("Own", (TinyAlpaca,), {})
        return generator

    alone = [written(new(), number) for number in range(4)]
    for _ in range(2):
        generator = new()
        assert_equal(at_once(lambda number, one=generator: written(one, number)), alone)
        assert {m.training for m in generator.model.modules()} == {kind == "left in training mode"}


def test_a_model_is_put_in_a_mode_while_others_look_at_it() -> None:
    for _ in range(20):
        model = tiny_model()
        for module in model.modules():
            del module.training  # so that a mode adds an attribute
        structure = Structure(model)

        def work(number: int, model: Any = model, structure: Structure = structure) -> None:
            if number % 2:
                model.eval()
            for _ in range(5):
                structure.still_holds()

        at_once(work)
        assert not structure.still_holds() and Structure(model).still_holds()


def test_one_tokenizer_for_all() -> None:
    """Its table of words is emptied again and again meanwhile."""
    tokenizer = tiny_tokenizer()
    tokenizer._cache.max_words = 3
    texts = [TEXT[number:] * 3 for number in range(4)]
    alone = [tokenizer.encode(text) for text in texts]

    def work(number: int) -> list[Any]:
        ids = [tokenizer.encode(texts[number]) for _ in range(10)]
        assert {tokenizer.decode(one) for one in ids} == {texts[number]}
        return ids

    assert at_once(work) == [[ids] * 10 for ids in alone]


def test_merges_are_learned_in_threads() -> None:
    def work(number: int) -> Any:
        return BPETokenizer.train(TEXT[5 * number :], num_merges=20, progress=False).merges

    alone = [work(number) for number in range(4)]
    assert at_once(work) == alone and alone[0] != alone[3]


def test_a_model_is_trained_while_others_write() -> None:
    """Writing records no graph, and leaves dropout out: in its own thread only."""

    def work(number: int) -> list[Any]:
        if number % 2:
            return written(tiny_generator(seed=number), number)
        rng = RandomGenerator(number)
        model = TinyAlpaca(ModelConfig(vocab_size=9, d_model=8, d_ff=16, dropout=0.3), rng)
        optimizer = optim.AdamW(model.parameters(), lr=0.01)
        ids = np.arange(14).reshape(2, 7) % 9
        losses = []
        for step in range(12):
            optimizer.zero_grad()
            with rng.seeded(number, step):
                loss = F.cross_entropy(model(ids).reshape(14, 9), (ids.reshape(14) + 1) % 9)
            loss.backward()
            optimizer.step()
            losses.append(loss.numpy())
        return losses + list(model.state_dict().values())

    alone = [work(number) for number in range(4)]
    assert_equal(at_once(work), alone)


class Equal(nn.Module):
    """A module that equals every other one of its class, and so has no hash."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Equal)


def test_modules_that_are_equal_have_modes_of_their_own() -> None:
    parts = [Equal(), Equal()]
    parts[1].eval()
    with evaluating(parts):
        assert not parts[0].training
    assert parts[0].training and not parts[1].training
