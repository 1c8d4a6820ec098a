"""A model with cached keys and values gives the same logits as for the whole text."""

import numpy as np
import pytest

import minigrad as mg
from minigrad.errors import ShapeError
from tests.tinyalpaca.tiny_models import LLAMA, tiny_model
from tinyalpaca.key_values import KeyValues

MODELS = pytest.mark.parametrize(
    "options",
    [{}, {"pre_norm": True, "norm": "rms", "positions": "rotary"}, {"bias": False}, LLAMA],
    ids=["original", "rotary", "no bias", "llama"],
)


@pytest.fixture(autouse=True)
def without_gradients():
    with mg.no_grad():
        yield


@MODELS
@pytest.mark.parametrize("parts", [(11,), (1, 1, 1), (4, 1, 1, 1), (4, 3, 2, 1, 1)])
def test_parts_give_what_the_whole_gives(options, parts, rng):
    model = tiny_model(**options).astype(np.float64)
    ids = rng.integers(0, 30, (3, 11))
    whole = model(ids).numpy()
    cache, place = KeyValues(3, 11), 0
    for length in parts:
        logits = model(ids[:, place : place + length], cache).numpy()
        place += length
        np.testing.assert_allclose(logits[:, 0], whole[:, place - 1], rtol=0, atol=1e-12)
    assert cache.lengths.tolist() == [place] * 3


@MODELS
def test_sequences_of_several_lengths(options, rng):
    """They begin separately and continue together; one is removed and one added in between."""
    model = tiny_model(**options).astype(np.float64)
    ids = rng.integers(0, 30, (3, 11))
    whole = model(ids).numpy()
    cache = KeyValues(3, 11)
    for row, length in enumerate((2, 5, 4)):
        cache.rows = [row]
        model(ids[row : row + 1, :length], cache)
    cache.rows = slice(None)

    def go_on(rows):
        at = cache.lengths.copy()
        logits = model(ids[rows, at][:, None], cache).numpy()
        np.testing.assert_allclose(logits[:, 0], whole[rows, at], rtol=0, atol=1e-12)

    go_on([0, 1, 2])
    cache.lengths[0] = 0
    cache.rows = [0]
    model(ids[:1, :7], cache)
    cache.rows = slice(None)
    go_on([0, 1, 2])
    cache.remove(0)
    go_on([2, 1])
    go_on([2, 1])


def test_two_positions_each_of_sequences_of_several_lengths(rng):
    model = tiny_model().astype(np.float64)
    ids = rng.integers(0, 30, (2, 11))
    whole = model(ids).numpy()
    cache = KeyValues(2, 11)
    for row, length in enumerate((3, 6)):
        cache.rows = [row]
        model(ids[row : row + 1, :length], cache)
    cache.rows = slice(None)
    logits = model(np.stack([ids[0, 3:5], ids[1, 6:8]]), cache).numpy()
    np.testing.assert_allclose(logits[:, 0], whole[[0, 1], [4, 7]], rtol=0, atol=1e-12)


def test_what_does_not_fit_is_refused():
    model, cache = tiny_model(), KeyValues(2, 5)
    with pytest.raises(ShapeError, match="a cache of 2 sequences for ids of shape \\(3, 2\\)"):
        model(np.zeros((3, 2), int), cache)
    model(np.zeros((2, 4), int), cache)
    with pytest.raises(ShapeError, match="room for 5 positions: 2 after 4 are too many"):
        model(np.zeros((2, 2), int), cache)
    assert cache.lengths.tolist() == [4, 4]
