import itertools

import numpy as np
import pytest

import minigrad
from tests.tinyalpaca.tiny_models import tiny_model
from tinyalpaca.generation.batch_decoder import ENOUGH_SEQUENCES, BatchDecoder
from tinyalpaca.generation.folded_weights import fold
from tinyalpaca.generation.inference import CachedDecoder, run_window
from tinyalpaca.generation.ready_model import ReadyModel
from tinyalpaca.generation.uncached import UncachedDecoder, window_start

CHOICES = {
    "pre_norm": [False, True],
    "norm": ["layer", "rms"],
    "positions": ["learned", "rotary"],
    "bias": [False, True],
    "tie_weights": [False, True],
    "activation": ["relu", "gelu", "gelu_tanh", "silu"],
}
DECODERS = pytest.mark.parametrize("decoder", [CachedDecoder, BatchDecoder])
OPTIONS = [
    dict(zip(CHOICES, values, strict=True)) for values in itertools.product(*CHOICES.values())
]


def compare(cached, uncached, sequences, steps, rtol):
    """Equal logits along the greedy path of the uncached decoder."""
    for _ in range(steps):
        ours, expected = cached.next_logits(), uncached.next_logits()
        np.testing.assert_allclose(ours, expected, rtol=0, atol=rtol * np.abs(expected).max())
        for tokens, row in zip(sequences, expected, strict=True):
            tokens.append(int(row.argmax()))


@DECODERS
@pytest.mark.parametrize("lengths", [(1,), (3, 14)])
@pytest.mark.parametrize(
    "options",
    [  # every ninth has each choice several times; all of them are slow tests
        pytest.param(o, marks=() if i % 9 == 0 else pytest.mark.slow) for i, o in enumerate(OPTIONS)
    ],
    ids=lambda o: "-".join(map(str, o.values())),
)
def test_cached_logits_are_the_models(decoder, options, lengths, rng):
    """Every option, prompts shorter and longer than the context, past its end more than once."""
    model = tiny_model(**options)
    sequences = [rng.integers(0, 27, n).tolist() for n in lengths]
    weights = fold(model, 27)
    uncached = UncachedDecoder(model, 27, sequences)
    compare(decoder(weights, sequences), uncached, sequences, 13, 1e-5)


@DECODERS
@pytest.mark.parametrize("lengths", [(11,), (12,), (30,), (6, 6), (11, 12, 1, 40)])
def test_prompts_of_any_lengths_far_past_the_context(decoder, lengths, rng):
    model = tiny_model()
    sequences = [rng.integers(0, 30, n).tolist() for n in lengths]
    uncached = UncachedDecoder(model, 30, sequences)
    compare(decoder(fold(model, 30), sequences), uncached, sequences, 40, 1e-5)


@DECODERS
@pytest.mark.parametrize("context", [1, 2, 3, 4])
@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_the_shortest_contexts(decoder, context, positions):
    model = tiny_model(max_seq_len=context, positions=positions)
    sequences = [[3], [5, 1, 2, 3, 4]]
    uncached = UncachedDecoder(model, 30, sequences)
    compare(decoder(fold(model, 30), sequences), uncached, sequences, 9, 1e-5)


@DECODERS
@pytest.mark.parametrize("options", [{}, {"pre_norm": True, "positions": "rotary"}])
@pytest.mark.parametrize("rows", [1, 3])
def test_in_float64_cached_and_uncached_agree_to_rounding(decoder, options, rows):
    model = tiny_model(**options).astype(np.float64)
    sequences = [[1, 2, 3] for _ in range(rows)]
    uncached = UncachedDecoder(model, 30, sequences)
    compare(decoder(fold(model, 30), sequences), uncached, sequences, 15, 1e-13)


@DECODERS
@pytest.mark.parametrize("scale", [40.0, 2000.0])
def test_scores_beyond_the_range_of_exp_are_no_trouble(decoder, scale):
    model = tiny_model(spread=0.1)
    for layer in model.decoder_layers:
        projection = layer.multi_head_attention.qkv_proj.weight
        projection.assign(projection.data * scale)
    model.astype(np.float64)  # so that rounding of such scores does not matter
    sequences = [[1, 2, 3, 4]]
    uncached = UncachedDecoder(model, 30, sequences)
    cached = decoder(fold(model.astype(np.float64), 30), sequences)
    compare(cached, uncached, sequences, 15, 1e-9)


def test_scores_out_of_range_in_float32_are_found():
    model = tiny_model(spread=0.1)
    for layer in model.decoder_layers:
        projection = layer.multi_head_attention.qkv_proj.weight
        projection.assign(projection.data * 1000)
    decoder = CachedDecoder(fold(model, 30), [[1, 2, 3, 4]])
    assert np.isfinite(decoder.next_logits()).all()
    assert decoder._single(4, 3) is None


@DECODERS
def test_a_sequence_that_leaves_does_not_disturb_the_others(decoder, rng):
    model = tiny_model()
    sequences = [rng.integers(0, 30, n).tolist() for n in (3, 9, 5, 12)]
    cached = decoder(fold(model, 30), sequences)
    uncached = UncachedDecoder(model, 30, sequences)
    left = list(sequences)
    for row in (1, 2, 0):
        compare(cached, uncached, left, 3, 1e-5)
        cached.remove(row)
        uncached.remove(row)
        left[row] = left[-1]
        del left[-1]
    compare(cached, uncached, left, 12, 1e-5)
    assert cached.cache.shape[1 if decoder is CachedDecoder else -1] == 1


@DECODERS
def test_a_cache_has_room_for_what_is_asked_and_no_more(decoder):
    model = tiny_model()
    sequences = [[1, 2, 3]]
    cached = decoder(fold(model, 30), sequences, capacity=7)
    assert cached.cache.shape[-1 if decoder is CachedDecoder else 2] == 7
    compare(cached, UncachedDecoder(model, 30, sequences), sequences, 5, 1e-5)


def test_the_window_slides_by_halves_and_depends_on_the_length_alone():
    for context in range(1, 12):
        starts = [window_start(n, context) for n in range(1, 60)]
        sizes = [n - start for n, start in zip(range(1, 60), starts, strict=True)]
        assert starts == sorted(starts)
        assert max(sizes) == context
        assert min(sizes[context:]) == context - (context + 1) // 2 + 1
        assert all(start == 0 for start in starts[:context])


@pytest.mark.parametrize("options", [{}, {"pre_norm": True, "norm": "rms", "positions": "rotary"}])
def test_a_whole_window_gives_all_logits(options, rng):
    model = tiny_model(**options)
    ids = rng.integers(0, 30, (2, 9))
    logits = run_window(fold(model, 30), ids)
    with minigrad.no_grad():
        expected = model(ids).numpy()
    np.testing.assert_allclose(logits.reshape(2, 9, 30), expected, atol=1e-5 * abs(expected).max())


def test_folding_leaves_the_model_alone():
    model = tiny_model(tie_weights=True, pre_norm=True)
    before = {name: array.copy() for name, array in model.state_dict().items()}
    fold(model, 20)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize(
    ("sequences", "heads", "kind"),
    [
        (ENOUGH_SEQUENCES - 1, 3, CachedDecoder),
        (ENOUGH_SEQUENCES, 3, BatchDecoder),
        (ENOUGH_SEQUENCES, 1, CachedDecoder),
    ],
)
def test_many_sequences_of_small_heads_are_columns(sequences, heads, kind):
    model = tiny_model(d_model=48, d_ff=8, num_heads=heads)  # a head of 48 is not small
    decoder = ReadyModel(model, 30, graph=False).decoder([[1, 2]] * sequences, 5)
    assert type(decoder) is kind
