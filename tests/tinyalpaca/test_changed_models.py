"""A model whose code a user has changed writes its own text, not that of the unchanged model."""

import dataclasses
import json
import sys
import warnings

import numpy as np
import pytest

import minigrad as mg
from minigrad import announce, nn
from minigrad.errors import KernelFallbackWarning
from minigrad.functions import gelu, relu, silu
from tests.tinyalpaca.tiny_models import LLAMA, tiny_generator, tiny_model, tiny_tokenizer
from tinyalpaca.config import ModelConfig
from tinyalpaca.generation import Generator, ready_model
from tinyalpaca.generation.as_written import Structure, largest_size, why_not_as_written
from tinyalpaca.generation.reading import read_back
from tinyalpaca.generation.token_page import token_page
from tinyalpaca.lora import LoRA, add_adapters
from tinyalpaca.model import DecoderLayer, FeedForwardNetwork, TinyAlpaca
from tinyalpaca.rotation import Rotation

PROMPTS = ["the", "the cat sat on the mat, the hat"]


@pytest.fixture(autouse=True)
def nothing_announced(monkeypatch):
    """Forget earlier warnings before each test, because each message is shown once."""
    monkeypatch.setattr(announce, "_announced", set())


class SquaredReLU(FeedForwardNetwork):
    def hidden(self, x):
        return relu(self.fc1(x)) ** 2


class SwiGLU(nn.Module):
    def __init__(self, size, hidden):
        self.gate = nn.Linear(size, hidden, rng=mg.Generator(1))
        self.up = nn.Linear(size, hidden, rng=mg.Generator(2))
        self.down = nn.Linear(hidden, size, rng=mg.Generator(3))

    def forward(self, x):
        return self.down(silu(self.gate(x)) * self.up(x))


class Parallel(DecoderLayer):
    def forward(self, x):
        return x + self.multi_head_attention(self.layer_norm1(x)) + self.ffn(self.layer_norm2(x))


class Adapted(nn.Module):
    """A linear layer plus a low-rank product."""

    def __init__(self, linear):
        self.linear = linear
        self.a = nn.Parameter(mg.Generator(4).normal((2, linear.weight.shape[1])))
        self.b = nn.Parameter(mg.Generator(5).normal((linear.weight.shape[0], 2)))

    def forward(self, x):
        return self.linear(x) + (x @ self.a.T) @ self.b.T


class Sum(nn.Module):
    def forward(self, x, residual):
        return x + residual


class Sub(TinyAlpaca):
    def forward(self, ids):
        return super().forward(ids) * 0.5


def squared(model):
    model.decoder_layers[1].ffn.__class__ = SquaredReLU


def swiglu(model):
    model.decoder_layers[0].ffn = SwiGLU(24, 40)


def parallel(model):
    model.decoder_layers[0].__class__ = Parallel


def adapted(model):
    layer = model.decoder_layers[0].multi_head_attention
    layer.qkv_proj = Adapted(layer.qkv_proj)


def subclass(model):
    model.__class__ = Sub


def activation(model):
    model.decoder_layers[0].ffn.activation = "silu"


def other_heads(model):
    model.decoder_layers[1].multi_head_attention.num_heads = 4


def turned_by_position(model):
    turned = dataclasses.replace(model.config, positions="rotary")
    model.decoder_layers[1].multi_head_attention.rotation = Rotation.of(turned)


def pre_norm(model):
    model.decoder_layers[1].pre_norm = True


def other_norm(model):
    model.decoder_layers[0].layer_norm1 = nn.RMSNorm(24)


def no_norm(model):
    model.decoder_layers[0].layer_norm2 = Sum()


def other_eps(model):
    model.decoder_layers[1].layer_norm2.eps = 0.5


def a_hook(model):
    model.decoder_layers[0].ffn.fc1.register_forward_hook(lambda module, args, y: gelu(y))


def a_hook_on_all(model):
    model.register_forward_hook(lambda module, args, logits: logits * 0.5)


def a_method_of_its_own(model):
    ffn = model.decoder_layers[0].ffn
    ffn.hidden = lambda x: relu(ffn.fc1(x)) * 2


def a_layer_more(model):
    model.decoder_layers.append(DecoderLayer(model.config, mg.Generator(8)))


def a_norm_at_the_end(model):
    model.final_norm = nn.LayerNorm(24)


def two_dtypes(model):
    model.decoder_layers[0].ffn.fc1.astype("float64")


CHANGES = [
    *(squared, swiglu, parallel, adapted, subclass, activation, other_heads, turned_by_position),
    *(pre_norm, other_norm, no_norm, other_eps, a_hook, a_hook_on_all, a_method_of_its_own),
    *(a_layer_more, a_norm_at_the_end, two_dtypes),
]


def texts(generator, **options):
    return generator.generate(PROMPTS, 16, seed=3, return_logprobs=True, **options)


def assert_same(ours, expected):
    for a, b in zip(ours, expected, strict=True):
        assert a.tokens == b.tokens
        np.testing.assert_allclose(a.logprobs, b.logprobs, atol=2e-5)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id=""),
        pytest.param({"tie_weights": True}, id="tied", marks=pytest.mark.slow),
    ],
)
def test_a_changed_model_writes_its_own_text(change, options):
    generator = tiny_generator(**options)
    before = texts(generator)  # so that there are folded weights
    change(generator.model)
    with mg.textbook():
        expected = texts(generator)
    with pytest.warns(KernelFallbackWarning, match="generation runs the whole model for every"):
        ours = texts(generator)
    assert_same(ours, expected)
    assert [t.logprobs for t in ours] != [t.logprobs for t in before]
    assert_same(texts(generator), expected)  # a second warning would be an error
    steps = list(generator.steps(PROMPTS[0], 16, seed=3, alternatives=2))
    alone = generator.generate(PROMPTS[0], 16, seed=3)
    assert "".join(step.text for step in steps) == alone


def exchanged(model):
    ffn = model.decoder_layers[0].ffn
    ffn.fc1, ffn.fc2 = ffn.fc2, ffn.fc1


def renamed(model):
    vars(model)["last"] = vars(model).pop("final_linear")


@pytest.mark.parametrize("change", [*CHANGES[:-1], exchanged, renamed])
def test_a_change_of_what_a_model_is_made_of_is_seen(change):
    model = tiny_model()
    structure = Structure(model)
    assert structure.still_holds() and structure.why_not() is None
    change(model)
    assert not structure.still_holds()


@pytest.mark.parametrize("options", [{}, {"pre_norm": True, "norm": "rms", "positions": "rotary"}])
def test_a_model_as_it_was_made_takes_the_fast_way(options):
    for more in ({}, {"tie_weights": True}, {"bias": False}, {"activation": "gelu_tanh"}):
        model = tiny_model(**options, **more)
        assert why_not_as_written(dict(model.named_modules())) is None
        assert largest_size(model.config) == max(p.size for p in model.parameters())
    texts(tiny_generator(**options))  # a warning would be an error


@pytest.mark.parametrize("options", [{}, {"pre_norm": True, "bias": False}])
def test_adapters_are_folded_in(options):
    generator = tiny_generator(**options)
    before = texts(generator)
    add_adapters(generator.model, LoRA(rank=2, alpha=4.0, layers="*"), mg.Generator(6))
    for name, parameter in generator.model.named_parameters():
        if name.endswith("lora_b"):
            parameter.assign(mg.Generator(7).normal(parameter.shape).array)
    with mg.textbook():
        expected = texts(generator)
    assert_same(texts(generator), expected)  # a warning would be an error
    assert [t.logprobs for t in expected] != [t.logprobs for t in before]


def test_a_method_of_the_class_that_was_replaced(monkeypatch):
    generator = tiny_generator()
    monkeypatch.setattr(FeedForwardNetwork, "hidden", lambda ffn, x: relu(ffn.fc1(x)) * 3)
    with mg.textbook():
        expected = texts(generator)
    with pytest.warns(KernelFallbackWarning, match=r"FeedForwardNetwork.hidden was replaced"):
        assert_same(texts(generator), expected)


@pytest.mark.parametrize(
    ("place", "name", "options"),
    [
        ("tinyalpaca.model", "gelu", {"activation": "gelu"}),
        ("tinyalpaca.model", "rotated", {"positions": "rotary", "num_heads": 2}),
        ("minigrad.nn.functional", "multi_head_attention", {}),
        ("minigrad.nn.functional", "linear", LLAMA),
    ],
)
def test_a_function_that_was_replaced(place, name, options, monkeypatch):
    generator = tiny_generator(**options)
    texts(generator)
    original = getattr(sys.modules[place], name)
    monkeypatch.setattr(sys.modules[place], name, lambda *a, **k: 0.5 * original(*a, **k))
    with mg.textbook():
        expected = texts(generator)
    with pytest.warns(KernelFallbackWarning, match=f"{place}.{name} was replaced"):
        assert_same(texts(generator), expected)


def test_a_text_is_of_the_model_at_its_first_token():
    generator = tiny_generator(max_seq_len=64)
    steps = generator.steps(PROMPTS[1], 20, seed=3, alternatives=None)
    state = {name: 1.5 * np.asarray(value) for name, value in generator.model.state_dict().items()}
    generator.model.load_state_dict(state, assign=True)
    assert "".join(step.text for step in steps) == generator.generate(PROMPTS[1], 20, seed=3)


def swap(array):
    array[[1, 5]] = array[[5, 1]]


def move(array):
    array[3] += 1
    array[7] -= 1


WAYS = {
    "a bias moves to another token": lambda m: swap(m.final_linear.bias.data),
    "rows change places": lambda m: swap(m.embedding.token_embed.data),
    "what is added is taken away elsewhere": lambda m: move(m.final_linear.bias.data),
    "in place, by the engine": lambda m: m.final_linear.weight.assign(
        np.ascontiguousarray(m.final_linear.weight.array[::-1])
    ),
    "an array that was handed out before": None,
}


def changes_what_is_written(way, written):
    """After a change of the weights, `written(generator)` is what the textbook writes."""
    generator = tiny_generator()
    handed_out = generator.model.final_linear.weight.data
    before = written(generator)
    if WAYS[way] is None:
        swap(handed_out)
    else:
        WAYS[way](generator.model)
    with mg.textbook():
        expected = written(generator)
    assert_same(written(generator), expected)
    assert [t.logprobs for t in expected] != [t.logprobs for t in before]


@pytest.mark.parametrize("way", WAYS)
def test_changed_weights_are_seen_whatever_their_sum(way):
    changes_what_is_written(way, texts)


@pytest.fixture
def large(monkeypatch):
    """All models count as large, so nothing is folded."""
    monkeypatch.setattr(ready_model, "FOLDED", 0)


def text_of(generator):
    return [generator.generate(PROMPTS[1], 16, seed=3, return_logprobs=True)]


@pytest.mark.parametrize(
    ("change", "options"),
    [(change, {}) for change in CHANGES]
    + [
        (change, LLAMA)
        for change in (swiglu, parallel, adapted, subclass, other_eps, a_hook_on_all)
    ],
)
def test_a_changed_large_model_writes_its_own_text(change, options, large):
    generator = tiny_generator(**options)
    before = text_of(generator)
    change(generator.model)
    with mg.textbook():
        expected = text_of(generator)
    if change is not two_dtypes:  # then the model itself runs
        with pytest.warns(KernelFallbackWarning, match="generation runs the whole model for every"):
            assert_same(text_of(generator), expected)
    assert_same(text_of(generator), expected)
    assert [t.logprobs for t in expected] != [t.logprobs for t in before]


@pytest.mark.parametrize("way", WAYS)
def test_changed_weights_of_a_large_model_are_used(way, large):
    changes_what_is_written(way, text_of)


def test_adapters_of_a_large_model(large):
    generator = tiny_generator(**LLAMA)
    before = text_of(generator)
    add_adapters(generator.model, LoRA(rank=2, alpha=4.0, layers="*"), mg.Generator(6))
    for name, parameter in generator.model.named_parameters():
        if name.endswith("lora_b"):
            parameter.assign(mg.Generator(7).normal(parameter.shape).array)
    with mg.textbook():
        expected = text_of(generator)
    assert_same(text_of(generator), expected)  # a warning would be an error
    assert [t.logprobs for t in expected] != [t.logprobs for t in before]


def test_a_parameter_of_the_same_sum_takes_anothers_place():
    generator = tiny_generator()
    texts(generator)
    bias = generator.model.final_linear.bias
    generator.model.final_linear.bias = nn.Parameter(np.roll(bias.numpy(), 1))
    with mg.textbook():
        expected = texts(generator)
    assert_same(texts(generator), expected)


def test_pages_and_alternatives_are_the_changed_models():
    generator = tiny_generator()
    swiglu(generator.model)
    parallel(generator.model)
    tokens = generator.tokenizer.encode("the cat sat")
    with mg.no_grad():
        logits = generator.model.eval()(np.array([tokens]))[0].numpy().astype(np.float64)
    logits = logits[:, : generator.tokenizer.vocab_size]
    expected = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    readings = list(read_back(generator, tokens))
    for place, reading in enumerate(readings):
        np.testing.assert_allclose(reading.logprobs, expected[place], atol=1e-5)
        assert reading.attention.shape == (2, 3, place + 1)
    assert '"layers": 2' in token_page(generator, tokens, 3)


def test_a_page_of_a_model_without_attention_of_ours():
    class Bigrams(nn.Module):
        """A model in which the next token depends on the last one only."""

        def __init__(self):
            self.config = ModelConfig(vocab_size=300, max_seq_len=11)
            self.table = nn.Parameter(mg.Generator(0).normal((300, 300)))
            self.seen_tokens, self.end_tokens = None, ()

        def forward(self, ids):
            return nn.functional.embedding(self.table, ids)

    generator = Generator(Bigrams(), tiny_tokenizer())
    with pytest.warns(KernelFallbackWarning, match="the model is a Bigrams, not a TinyAlpaca"):
        written = generator.generate("the", 20, seed=0)
    page = token_page(generator, generator.tokenizer.encode(written), 1)
    data = page.split('type="application/json">')[1].split("</script>")[0]
    assert json.loads(data)["layers"] == 0


def test_hooks_are_called_where_blocks_end_in_one_op():
    layer = tiny_model().decoder_layers[0].eval()
    assert layer.ends_are_plain()
    remove = layer.ffn.register_forward_hook(lambda module, args, y: y)
    assert not layer.ends_are_plain()
    remove()
    layer.multi_head_attention.heads = lambda x: x
    assert not layer.ends_are_plain()


def test_nothing_is_announced_by_the_textbook():
    generator = tiny_generator()
    squared(generator.model)
    with warnings.catch_warnings(), mg.textbook():
        warnings.simplefilter("error")
        texts(generator)
