import hashlib
import itertools

import numpy as np
import pytest

from tests.tinyalpaca.tiny_models import LLAMA, tiny_model
from tinyalpaca.generation import decoder as decoders
from tinyalpaca.generation import ready_model, single_step
from tinyalpaca.generation.batch_decoder import BatchDecoder
from tinyalpaca.generation.decoder import ModelDecoder
from tinyalpaca.generation.folded_weights import fold
from tinyalpaca.generation.plain_weights import views
from tinyalpaca.generation.ready_model import FEW, LARGEST_HEAD, ReadyModel
from tinyalpaca.generation.single_step import FewDecoder
from tinyalpaca.generation.uncached import UncachedDecoder
from tinyalpaca.generation.windows import window_start

MATRICES = ("qkv", "out", "fc1", "fc2")
CHOICES = {
    "pre_norm": [False, True],
    "norm": ["layer", "rms"],
    "positions": ["learned", "rotary"],
    "bias": [False, True],
    "tie_weights": [False, True],
    "activation": ["relu", "gelu", "gelu_tanh", "silu"],
}


LOGITS = {}  # of a model after some tokens


class Expected(UncachedDecoder):
    """The uncached decoder; many tests ask for the same model's logits, which are computed once.

    Args:
        model: its weights stay as they are.
    """

    def __init__(self, model, vocab_size, sequences):
        super().__init__(model, vocab_size, sequences)
        weights = hashlib.sha256()
        for parameter in model.parameters():
            weights.update(str(parameter.dtype).encode() + parameter.array.tobytes())
        self.of = (model.config, vocab_size, weights.digest())

    def next_logits(self):
        return np.stack([self.after(tuple(tokens)) for tokens in self.sequences])

    def after(self, tokens):
        key = (self.of, tokens)
        if key not in LOGITS:
            one = UncachedDecoder(self.model, self.vocab_size, [list(tokens)])
            [LOGITS[key]] = one.next_logits()
        return LOGITS[key]


class PlainDecoder(FewDecoder):
    """A decoder with the model's own weights, not folded."""


def made(kind, model, vocab_size, sequences, capacity=None):
    """A decoder of this kind."""
    context = model.config.max_seq_len
    what = {
        ModelDecoder: lambda: vocab_size,
        PlainDecoder: lambda: views(model, vocab_size, min(capacity or context, context)),
    }.get(kind, lambda: fold(model, vocab_size))
    return kind(model, what(), sequences, capacity)


DECODERS = pytest.mark.parametrize(
    "decoder", [FewDecoder, PlainDecoder, BatchDecoder, ModelDecoder]
)
# Options that folding does not support.
SHARED = [{"num_kv_heads": 1}, {"head_size": 10}, {"activation": "swiglu"}, LLAMA]
OPTIONS = [
    dict(zip(CHOICES, values, strict=True)) for values in itertools.product(*CHOICES.values())
]


def compare(cached, uncached, sequences, steps, rtol):
    """Logits are equal along the greedy path of the uncached decoder."""
    for _ in range(steps):
        ours, expected = cached.next_logits(), uncached.next_logits()
        np.testing.assert_allclose(ours, expected, rtol=0, atol=rtol * np.abs(expected).max())
        for tokens, row in zip(sequences, expected, strict=True):
            tokens.append(int(row.argmax()))


@pytest.fixture(params=[0, 4, 10])
def short(request, monkeypatch):
    """The length up to which prompts are computed token by token; the models' context is 11."""
    monkeypatch.setattr(single_step, "SHORT", request.param)


@DECODERS
@pytest.mark.parametrize("lengths", [(1,), (3, 14)])
@pytest.mark.parametrize(
    "options",
    [  # every ninth combination has each choice several times; the others are slow tests
        pytest.param(o, marks=() if i % 9 == 0 else pytest.mark.slow) for i, o in enumerate(OPTIONS)
    ],
    ids=lambda o: "-".join(map(str, o.values())),
)
def test_cached_logits_are_the_models(decoder, options, lengths, rng):
    """For every option; prompts are shorter and longer than the context, texts exceed it."""
    model = tiny_model(**options)
    sequences = [rng.integers(0, 27, n).tolist() for n in lengths]
    uncached = Expected(model, 27, sequences)
    compare(made(decoder, model, 27, sequences), uncached, sequences, 13, 1e-5)


TURNED = {
    **{"positions": "rotary", "rope_base": 300.0, "rope_scaling": "llama3", "rope_factor": 4.0},
    **{"rope_context": 30, "norm_eps": 0.1, "bias": False, "qkv_bias": True},
}


@DECODERS
@pytest.mark.parametrize("pre_norm", [False, True])
def test_what_the_copies_take_from_the_model(decoder, pre_norm, rng):
    """Unusual angles, epsilon and biases of the model change the logits."""
    model = tiny_model(pre_norm=pre_norm, **TURNED)
    sequences = [rng.integers(0, 30, n).tolist() for n in (3, 14)]
    uncached = Expected(model, 30, sequences)
    compare(made(decoder, model, 30, sequences), uncached, sequences, 13, 1e-5)


@pytest.mark.parametrize("options", SHARED, ids=str)
@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-5), ("float64", 1e-13)])
def test_what_is_not_folded_is_computed_with_the_models_own_weights(options, dtype, rtol, rng):
    """For few sequences; for many the model itself runs."""
    model = tiny_model(**options).astype(dtype)
    for count, kind in ((1, FewDecoder), (FEW, FewDecoder), (FEW + 1, ModelDecoder)):
        sequences = [rng.integers(0, 30, n).tolist() for n in range(2, 2 + count)]
        decoder = ReadyModel(model, 30, True).decoder(sequences, 12)
        assert type(decoder) is kind
        compare(decoder, Expected(model, 30, sequences), sequences, 13, rtol)


@pytest.mark.parametrize("options", [{}, {"pre_norm": True, "tie_weights": True}, *SHARED], ids=str)
def test_no_weight_of_a_large_model_is_copied(options, monkeypatch):
    monkeypatch.setattr(ready_model, "FOLDED", 100)
    model = tiny_model(**options)
    decoder = ReadyModel(model, 27, True).decoder([[1, 2, 3]], 12)
    assert type(decoder) is FewDecoder and not decoder.weights.folded
    used = [getattr(layer, name) for layer in decoder.weights.layers for name in MATRICES]
    matrices = [p.array for p in model.decoder_layers.parameters() if p.ndim == 2]
    assert len(used) == len(matrices) == 8
    assert all(map(np.shares_memory, used, matrices))
    assert np.shares_memory(decoder.weights.tokens, model.embedding.token_embed.array)
    assert np.shares_memory(decoder.weights.head, model.final_linear.weight.array)
    assert type(ReadyModel(model, 27, True).decoder([[1], [2]], 12)) is ModelDecoder


@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_a_mean_far_from_0(norm):
    """The mean of the normalized vectors is thousands of standard deviations."""
    model = tiny_model(norm=norm, pre_norm=True)
    model.embedding.token_embed.assign(model.embedding.token_embed.array + np.float32(3000))
    sequences = [[1, 2, 3]]
    uncached = Expected(model, 30, sequences)
    compare(made(PlainDecoder, model, 30, sequences), uncached, sequences, 13, 1e-4)


@np.errstate(all="ignore")
@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "silu", "swiglu"])
def test_activations_where_e_to_the_x_overflows(activation):
    model = tiny_model(activation=activation)
    for layer in model.decoder_layers:
        layer.ffn.fc1.weight.assign(layer.ffn.fc1.weight.array * 300)
    sequences = [[1, 2, 3]]
    uncached = Expected(model, 30, sequences)
    compare(made(PlainDecoder, model, 30, sequences), uncached, sequences, 13, 1e-4)


@DECODERS
@pytest.mark.parametrize("lengths", [(11,), (12,), (30,), (6, 6), (11, 12, 1, 40)])
def test_prompts_of_any_lengths_far_past_the_context(decoder, lengths, rng, short):
    model = tiny_model()
    sequences = [rng.integers(0, 30, n).tolist() for n in lengths]
    uncached = Expected(model, 30, sequences)
    compare(made(decoder, model, 30, sequences), uncached, sequences, 40, 1e-5)


@DECODERS
@pytest.mark.parametrize("context", [1, 2, 3, 4])
@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_the_shortest_contexts(decoder, context, positions):
    model = tiny_model(max_seq_len=context, positions=positions)
    sequences = [[3], [5, 1, 2, 3, 4]]
    uncached = Expected(model, 30, sequences)
    compare(made(decoder, model, 30, sequences), uncached, sequences, 9, 1e-5)


@DECODERS
@pytest.mark.parametrize("options", [{}, {"pre_norm": True, "positions": "rotary"}])
@pytest.mark.parametrize("rows", [1, 3])
def test_in_float64_cached_and_uncached_agree_to_rounding(decoder, options, rows):
    model = tiny_model(**options).astype(np.float64)
    sequences = [[1, 2, 3] for _ in range(rows)]
    uncached = Expected(model, 30, sequences)
    compare(made(decoder, model, 30, sequences), uncached, sequences, 15, 1e-13)


@np.errstate(all="ignore")
@DECODERS
@pytest.mark.parametrize("scale", [40.0, 2000.0])
def test_scores_beyond_the_range_of_exp_are_no_trouble(decoder, scale):
    model = tiny_model(spread=0.1)
    for layer in model.decoder_layers:
        projection = layer.multi_head_attention.qkv_proj.weight
        projection.assign(projection.data * scale)
    model.astype(np.float64)  # so that rounding of such scores does not matter
    sequences = [[1, 2, 3, 4]]
    uncached = Expected(model, 30, sequences)
    cached = made(decoder, model, 30, sequences)
    compare(cached, uncached, sequences, 15, 1e-9)


@np.errstate(all="ignore")
@pytest.mark.parametrize("decoder", [FewDecoder, PlainDecoder])
def test_scores_out_of_range_in_float32_are_found(decoder):
    model = tiny_model(spread=0.1)
    for layer in model.decoder_layers:
        projection = layer.multi_head_attention.qkv_proj.weight
        projection.assign(projection.data * 1000)
    sequences = [[1, 2, 3, 4], [1, 2]]
    decoder = made(decoder, model, 30, sequences)
    ours, expected = decoder.next_logits(), Expected(model, 30, sequences).next_logits()
    np.testing.assert_allclose(ours, expected, atol=1e-3 * np.abs(expected).max())
    assert all(step.careful for step in decoder.steps)


@DECODERS
def test_a_sequence_that_leaves_does_not_disturb_the_others(decoder, rng):
    model = tiny_model()
    sequences = [rng.integers(0, 30, n).tolist() for n in (3, 9, 5, 12)]
    cached = made(decoder, model, 30, sequences)
    uncached = Expected(model, 30, sequences)
    left = list(sequences)
    for row in (1, 2, 0):
        compare(cached, uncached, left, 3, 1e-5)
        cached.remove(row)
        uncached.remove(row)
        left[row] = left[-1]
        del left[-1]
    compare(cached, uncached, left, 12, 1e-5)
    left_over = {
        FewDecoder: lambda: len(cached.steps),
        PlainDecoder: lambda: len(cached.steps),
        BatchDecoder: lambda: cached.cache.shape[-1],
        ModelDecoder: lambda: len(cached.cache.lengths),
    }
    assert left_over[decoder]() == 1


@DECODERS
def test_a_cache_has_room_for_what_is_asked_and_no_more(decoder):
    model = tiny_model()
    sequences = [[1, 2, 3]]
    cached = made(decoder, model, 30, sequences, 7)
    room = {
        FewDecoder: lambda: cached.steps[0].cache.shape[-1],
        PlainDecoder: lambda: cached.steps[0].cache.shape[-1],
        BatchDecoder: lambda: cached.cache.shape[2],
        ModelDecoder: lambda: cached.cache.room,
    }
    assert room[decoder]() == 7
    compare(cached, Expected(model, 30, sequences), sequences, 5, 1e-5)


def test_the_window_slides_by_halves_and_depends_on_the_length_alone():
    for context in range(1, 12):
        starts = [window_start(n, context) for n in range(1, 60)]
        sizes = [n - start for n, start in zip(range(1, 60), starts, strict=True)]
        assert starts == sorted(starts)
        assert max(sizes) == context
        assert min(sizes[context:]) == context - (context + 1) // 2 + 1
        assert all(start == 0 for start in starts[:context])


@DECODERS
def test_prompts_are_computed_in_parts_and_each_once(decoder, rng, monkeypatch):
    """Equal windows, as in several samples of a prompt, are computed once."""
    monkeypatch.setattr(decoders, "PREFILL_ROWS", 20)
    model = tiny_model()
    seen = []
    model.register_forward_hook(lambda module, args, y: seen.append(args[0].shape))
    first, other = rng.integers(0, 30, 7).tolist(), rng.integers(0, 30, 11).tolist()
    sequences = [first.copy(), other.copy(), first.copy(), [4], first.copy(), [4, 5]]
    cached = made(decoder, model, 30, sequences)
    logits = cached.next_logits()
    alone = issubclass(decoder, FewDecoder)  # it computes short prompts token by token
    assert seen[:2] == ([] if alone else [(2, 10), (2, 1)])
    seen.clear()
    expected = Expected(model, 30, sequences).next_logits()
    np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())
    compare(cached, Expected(model, 30, sequences), sequences, 9, 1e-5)


def test_folding_leaves_the_model_alone():
    model = tiny_model(tie_weights=True, pre_norm=True)
    before = {name: array.copy() for name, array in model.state_dict().items()}
    fold(model, 20)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize(
    ("sequences", "heads", "kind"),
    [(FEW, 3, FewDecoder), (FEW + 1, 3, BatchDecoder), (FEW + 1, 1, ModelDecoder)],
)
def test_many_sequences_of_small_heads_are_columns(sequences, heads, kind):
    width = 3 * LARGEST_HEAD // 2
    model = tiny_model(d_model=width, d_ff=8, num_heads=heads)
    decoder = ReadyModel(model, 30, graph=False).decoder([[1, 2]] * sequences, 5)
    assert type(decoder) is kind


HALF = {
    "original": {},
    "pre-norm": {"pre_norm": True, "activation": "gelu_tanh", "tie_weights": True},
    "rotary": {"pre_norm": True, "norm": "rms", "positions": "rotary", "num_heads": 2},
    "llama": LLAMA,
}


@pytest.mark.parametrize("options", HALF.values(), ids=HALF)
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("lengths", [(5,), (5, 9, 3, 14, 2, 7)])
def test_a_model_in_float16_is_run_itself(options, large, lengths, rng, monkeypatch):
    """The squares of its activations, and their sums, exceed float16's largest number, 65504."""
    if large:
        monkeypatch.setattr(ready_model, "FOLDED", 0)
    model = tiny_model(**options)
    for parameter in model.embedding.parameters():
        parameter.assign(parameter.array * 600)
    model.astype("float16")
    sequences = [rng.integers(0, 30, length).tolist() for length in lengths]
    ours = ReadyModel(model, 30, True).decoder(sequences, 40)
    assert type(ours) is ModelDecoder
    expected = Expected(model, 30, sequences)
    for _ in range(12):  # past the context
        found, wanted = ours.next_logits(), expected.next_logits()
        assert found.dtype == wanted.dtype == np.float32
        np.testing.assert_allclose(found, wanted, rtol=0, atol=0.01 * np.abs(wanted).max())
        for tokens, row, best in zip(sequences, found, wanted.argmax(axis=-1), strict=True):
            assert row[best] >= row.max() - 0.01 * np.abs(row).max()
            tokens.append(int(best))


def test_float16_is_only_a_part_of_a_model(rng, monkeypatch):
    monkeypatch.setattr(ready_model, "FOLDED", 0)
    for half in ("embedding", "decoder_layers", "final_linear"):
        model = tiny_model(**LLAMA)
        getattr(model, half).astype("float16")
        tokens = rng.integers(0, 30, 5).tolist()
        ours = ReadyModel(model, 30, True).decoder([tokens], 40)
        compare(ours, Expected(model, 30, [tokens]), [tokens], 12, rtol=0.01)


def test_scores_beyond_float16():
    model = tiny_model(**LLAMA)
    for layer in model.decoder_layers:
        projection = layer.multi_head_attention.qkv_proj
        projection.weight.assign(projection.weight.array * 400)
    model.astype("float16")
    tokens = [1, 2, 3]
    ours = ReadyModel(model, 30, True).decoder([tokens], 40)
    compare(ours, Expected(model, 30, [tokens]), [tokens], 6, rtol=0.05)


def test_a_row_of_zeros_and_an_eps_that_float32_has_not(monkeypatch):
    """These logits are NaN, like the model's own."""
    options = {"pre_norm": True, "norm": "rms", "norm_eps": 1e-60, "bias": False}
    for few in (0, 1 << 25):
        monkeypatch.setattr(ready_model, "FOLDED", few)
        model = tiny_model(**options)
        model.embedding.token_embed.assign(model.embedding.token_embed.array * 0)
        model.embedding.pos_embed.assign(model.embedding.pos_embed.array * 0)
        with np.errstate(all="ignore"):
            logits = ReadyModel(model, 30, True).decoder([[5]], 40).next_logits()
        assert np.isnan(logits).all()
