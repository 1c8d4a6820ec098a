"""Models whose code a user has changed, on the stand-in for CuPy: see tests/tinyalpaca."""

from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad.errors import KernelFallbackWarning
from tests.tinyalpaca.test_changed_models import SquaredReLU, assert_same, texts
from tests.tinyalpaca.tiny_models import tiny_generator
from tinyalpaca.generation import Generator


def test_a_changed_model_runs_itself(gpu: Any) -> None:
    expected, generator = tiny_generator(), tiny_generator()
    generator.model.to("gpu")
    for model in (expected.model, generator.model):
        model.decoder_layers[1].ffn.__class__ = SquaredReLU
    with pytest.warns(KernelFallbackWarning, match="a SquaredReLU, not a FeedForwardNetwork"):
        ours = texts(generator)
    with mg.textbook():
        assert_same(ours, texts(expected))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_changed_weights_are_seen_whatever_their_sum(gpu: Any, dtype: str) -> None:
    expected, generator = tiny_generator(), tiny_generator()
    expected.model.astype(dtype)
    generator.model.astype(dtype).to("gpu")
    before = texts(generator)
    rows = np.roll(np.arange(len(expected.model.final_linear.bias.data)), 1)
    for model in (expected.model, generator.model):
        array = model.final_linear.bias.array
        array[...] = array[model.final_linear.bias.device.asarray(rows)]
    ours = texts(generator)
    assert_same(ours, texts(Generator(expected.model, expected.tokenizer)))
    assert [t.logprobs for t in ours] != [t.logprobs for t in before]


def test_a_hook_is_called_where_blocks_end_in_one_op(gpu: Any) -> None:
    generator = tiny_generator()
    ids = np.array([[1, 2, 3]])
    model = generator.model.to("gpu")
    before = model(model.embedding.token_embed.device.asarray(ids)).numpy()
    called: list[int] = []
    model.decoder_layers[0].ffn.register_forward_hook(lambda *_: called.append(1))
    after = model(model.embedding.token_embed.device.asarray(ids)).numpy()
    assert called == [1]
    np.testing.assert_allclose(after, before, atol=1e-4)
