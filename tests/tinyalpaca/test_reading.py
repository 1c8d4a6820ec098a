import numpy as np
import pytest

from tests.tinyalpaca.tiny_models import tiny_generator
from tinyalpaca.generation.reading import read_back
from tinyalpaca.generation.windows import window_start


@pytest.mark.parametrize("options", [{}, {"pre_norm": True, "positions": "rotary"}])
def test_a_text_is_read_as_it_was_written(options):
    """Probabilities equal those of the draws, beyond the context length too."""
    generator = tiny_generator(**options)
    prompt = generator.tokenizer.encode("the cat")
    result = generator.generate("the cat", 40, seed=1, return_logprobs=True)
    readings = list(read_back(generator, prompt + result.tokens))
    assert [reading.place for reading in readings] == list(range(1, len(prompt) + 40))
    again = [
        reading.logprobs[token]
        for reading, token in zip(readings[len(prompt) - 1 :], result.tokens, strict=True)
    ]
    np.testing.assert_allclose(again, result.logprobs, atol=2e-5)
    for reading in readings:
        assert reading.start == window_start(reading.place, 11)
        assert reading.attention.shape == (2, 3, reading.place - reading.start)
        np.testing.assert_allclose(reading.attention.sum(-1), 1, rtol=1e-5)


def test_the_likeliest_are_those_of_the_steps():
    generator = tiny_generator()
    steps = list(generator.steps("the", 15, seed=2, alternatives=4, allow_all_tokens=True))
    tokens = generator.tokenizer.encode("the") + [step.token for step in steps]
    readings = list(read_back(generator, tokens))[-15:]
    for reading, step in zip(readings, steps, strict=True):
        ours, theirs = reading.likeliest(4), step.alternatives
        assert [token for token, _ in ours] == [token for token, _ in theirs]
        np.testing.assert_allclose([p for _, p in ours], [p for _, p in theirs], rtol=1e-4)


def test_a_single_token_has_nothing_to_read():
    assert list(read_back(tiny_generator(), [5])) == []
