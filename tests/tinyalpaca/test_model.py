"""The model equals the original, its gradients are right, and it can learn."""

import math
from contextlib import nullcontext

import numpy as np
import pytest

import minigrad as mg
from minigrad import optim
from tinyalpaca.config import ConfigError, ModelConfig
from tinyalpaca.model import TinyAlpaca
from tinyalpaca.parameter_names import parameter_shapes
from tinyalpaca.rotation import Rotation

TINY = {
    "vocab_size": 11,
    "d_model": 8,
    "d_ff": 12,
    "num_heads": 2,
    "num_layers": 2,
    "max_seq_len": 7,
}
LLAMA = {
    **{"pre_norm": True, "norm": "rms", "norm_eps": 1e-6, "activation": "swiglu"},
    **{"positions": "rotary", "num_heads": 4, "num_kv_heads": 2, "bias": False},
}
OPTIONS = [
    {},
    {"pre_norm": True},
    {"norm": "rms", "activation": "silu"},
    {"activation": "gelu"},
    {"activation": "gelu_tanh", "tie_weights": True},
    {"positions": "rotary"},
    {"bias": False},
    {"pre_norm": True, "norm": "rms", "positions": "rotary", "tie_weights": True, "bias": False},
    LLAMA,
    {**LLAMA, "num_kv_heads": 1, "head_size": 6, "qkv_bias": True, "tie_weights": True},
    {"num_kv_heads": 1, "head_size": 3, "activation": "swiglu", "norm_eps": 0.01},
]


def make(seed=0, **options):
    return TinyAlpaca(ModelConfig(**{**TINY, **options}), mg.Generator(seed))


def spread(model, rng):
    """Give every parameter random values, also those that start as zeros or ones."""
    for parameter in model.parameters():
        noise = rng.standard_normal(parameter.shape) * 0.3
        parameter.assign(parameter.data + noise.astype(parameter.dtype))
    return model


def ids_of(rng, batch=2, time=7, vocabulary=11):
    return rng.integers(0, vocabulary, (batch, time))


def relative_error(ours, theirs):
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-4)])
@pytest.mark.parametrize("kernels", [True, False], ids=["kernels", "textbook"])
def test_logits_and_gradients_equal_pytorchs(rng, dtype, tolerance, kernels):
    torch = pytest.importorskip("torch", reason="parity with PyTorch needs PyTorch")
    from tests.tinyalpaca.torch_model import twin_of

    config = {"vocab_size": 50, "d_model": 32, "d_ff": 48, "num_heads": 4, "max_seq_len": 40}
    model = spread(make(**config).astype(dtype), rng)
    twin = twin_of(model, getattr(torch, dtype))
    ids, targets = ids_of(rng, 3, 39, 50), ids_of(rng, 3, 39, 50)

    with nullcontext() if kernels else mg.textbook():
        logits = model(ids)
        model.loss(ids, targets).backward()
    expected = twin(torch.from_numpy(ids))
    torch.nn.functional.cross_entropy(
        expected.reshape(-1, 50), torch.from_numpy(targets).reshape(-1)
    ).backward()

    assert relative_error(logits.numpy(), expected.detach().numpy()) < tolerance
    theirs = dict(twin.named_parameters())
    assert list(theirs) == [name for name, _ in model.named_parameters()]
    largest = max(p.grad.abs().max().item() for p in theirs.values())
    for name, parameter in model.named_parameters():
        difference = np.abs(parameter.grad.numpy() - theirs[name].grad.numpy()).max()
        assert difference / largest < tolerance, name


@pytest.mark.parametrize(
    ("options", "full_limit"),
    [*((options, 12) for options in OPTIONS), pytest.param({}, 1000, marks=pytest.mark.slow)],
    ids=str,
)
def test_gradients_of_the_whole_model_are_proved(rng, options, full_limit):
    """Of small parameters every element, of larger ones along random directions."""
    model = spread(make(**options).astype("float64"), rng)
    ids, targets = mg.Tensor(ids_of(rng)), ids_of(rng)
    mg.gradcheck_module(
        model,
        [ids],
        lambda logits: mg.nn.functional.cross_entropy(logits, targets, reduction="none"),
        full_limit=full_limit,
        directions=4,
    )


def test_a_hessian_vector_product_of_the_model_is_proved(rng):
    """Differentiating the gradient's product with a vector equals differences of the gradient."""
    model = spread(make(num_layers=1).astype("float64"), rng)
    ids, targets = ids_of(rng), ids_of(rng)
    parameters = model.parameters()
    vector = [rng.standard_normal(p.shape) for p in parameters]

    gradients = mg.grad(model.loss(ids, targets), parameters, create_graph=True)
    product = sum((g * v).sum() for g, v in zip(gradients, vector, strict=True))
    hessian_vector = mg.grad(product, parameters, allow_unused=True)

    def gradient_at(step):
        for p, v in zip(parameters, vector, strict=True):
            p.assign(p.data + step * v)
        result = mg.grad(model.loss(ids, targets), parameters)
        for p, v in zip(parameters, vector, strict=True):
            p.assign(p.data - step * v)
        return [g.numpy() for g in result]

    step = 1e-6
    above, below = gradient_at(step), gradient_at(-step)
    for ours, a, b in zip(hessian_vector, above, below, strict=True):
        numeric = (a - b) / (2 * step)
        exact = np.zeros_like(numeric) if ours is None else ours.numpy()
        np.testing.assert_allclose(exact, numeric, rtol=1e-5, atol=1e-6)


def test_the_default_has_the_originals_size_and_names():
    model = TinyAlpaca(ModelConfig(vocab_size=216), mg.Generator(0))
    assert model.num_parameters() == 235_992
    names = [name for name, _ in model.named_parameters()]
    assert names[:2] == ["embedding.token_embed", "embedding.pos_embed"]
    layer = "decoder_layers.3."
    assert [n.removeprefix(layer) for n in names if n.startswith(layer)] == [
        "multi_head_attention.qkv_proj.weight",
        "multi_head_attention.qkv_proj.bias",
        "multi_head_attention.out_proj.weight",
        "multi_head_attention.out_proj.bias",
        "ffn.fc1.weight",
        "ffn.fc1.bias",
        "ffn.fc2.weight",
        "ffn.fc2.bias",
        "layer_norm1.weight",
        "layer_norm1.bias",
        "layer_norm2.weight",
        "layer_norm2.bias",
    ]
    assert names[-2:] == ["final_linear.weight", "final_linear.bias"]
    assert dict(model.named_parameters())["decoder_layers.0.ffn.fc1.weight"].shape == (256, 64)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_position_never_sees_a_later_one(rng, options):
    model = spread(make(**options), rng)
    ids = ids_of(rng)
    before = model(ids).numpy()
    changed = ids.copy()
    changed[:, 4:] = (changed[:, 4:] + 1) % 11
    after = model(changed).numpy()
    np.testing.assert_allclose(after[:, :4], before[:, :4], rtol=1e-6, atol=1e-6)
    assert np.abs(after[:, 4:] - before[:, 4:]).max() > 1e-3


def test_loss_at_the_start_is_that_of_guessing(rng):
    model = TinyAlpaca(ModelConfig(vocab_size=356), mg.Generator(0))
    ids, targets = ids_of(rng, 8, 127, 356), ids_of(rng, 8, 127, 356)
    assert model.loss(ids, targets).item() == pytest.approx(math.log(356), rel=0.05)


@pytest.mark.parametrize("options", [{}, {"pre_norm": True, "positions": "rotary"}], ids=str)
def test_one_batch_can_be_learned_by_heart(rng, options):
    model = TinyAlpaca(
        ModelConfig(vocab_size=30, d_model=32, d_ff=64, num_layers=2, max_seq_len=16, **options),
        mg.Generator(1),
    )
    windows = rng.integers(0, 30, (4, 17))
    optimizer = optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(300):
        optimizer.zero_grad()
        loss = model.loss(windows[:, :-1], windows[:, 1:])
        loss.backward()
        optim.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert loss.item() < 0.05


def test_dropout_acts_in_training_only_and_its_masks_follow_the_key(rng):
    model = make(dropout=0.3)
    ids, targets = ids_of(rng), ids_of(rng)

    def loss(*key):
        with model.rng.seeded(*key):
            return model.loss(ids, targets).item()

    assert loss(0, 5) == loss(0, 5) != loss(0, 6)
    model.eval()
    assert loss(0, 5) == loss(0, 6)


def rotation(**options):
    return Rotation.of(ModelConfig(positions="rotary", **{**TINY, **options}))


def test_rotary_scores_depend_on_distance_alone(rng):
    """Scores of rotated queries and keys do not change if both positions are shifted."""
    q, k = rng.standard_normal((2, 8))
    cos, sin = rotation(head_size=8).angles(20)

    def score(at, distance):
        def turn(x, position):
            return mg.nn.functional.rotary(mg.Tensor(x), cos[position], sin[position]).numpy()

        return turn(q, at) @ turn(k, at + distance)

    assert score(0, 3) == pytest.approx(score(11, 3), rel=1e-12)
    assert score(0, 3) != pytest.approx(score(0, 4), rel=1e-3)


LLAMA3 = {"rope_scaling": "llama3", "rope_factor": 8.0, "rope_context": 40, "rope_base": 500.0}


def test_scaled_rotary_positions():
    plain, slow = (
        rotation(head_size=8),
        rotation(head_size=8, rope_scaling="linear", rope_factor=4.0),
    )
    np.testing.assert_allclose(plain.frequencies(), 10.0 ** -np.arange(4), rtol=1e-15)
    np.testing.assert_allclose(slow.frequencies() * 4, plain.frequencies(), rtol=1e-15)
    unscaled = rotation(head_size=8, rope_base=500.0).frequencies()
    factors = rotation(head_size=8, **LLAMA3).frequencies() / unscaled
    turns = 40 * unscaled / (2 * math.pi)  # 6.37, 1.35, 0.28, 0.06 in the first context
    assert factors[0] == 1 and factors[2] == factors[3] == 1 / 8
    share = (turns[1] - 1) / (4 - 1)  # interpolates between slowed and unchanged
    assert factors[1] == pytest.approx(1 / 8 + share * 7 / 8, rel=1e-12)


def test_options_make_the_parameters_that_their_names_say():
    model = make(**LLAMA, head_size=6, qkv_bias=True)
    shapes = {name: p.shape for name, p in model.named_parameters()}
    assert shapes == dict(parameter_shapes(model.config))
    layer = "decoder_layers.1."
    assert {n.removeprefix(layer): s for n, s in shapes.items() if n.startswith(layer)} == {
        "multi_head_attention.qkv_proj.weight": ((4 + 2 * 2) * 6, 8),
        "multi_head_attention.qkv_proj.bias": ((4 + 2 * 2) * 6,),
        "multi_head_attention.out_proj.weight": (8, 4 * 6),
        "ffn.fc1.weight": (2 * 12, 8),
        "ffn.fc2.weight": (8, 12),
        "layer_norm1.weight": (8,),
        "layer_norm2.weight": (8,),
    }
    assert "final_linear.bias" not in shapes and "embedding.pos_embed" not in shapes
    norms = [m for m in model.modules() if isinstance(m, mg.nn.RMSNorm)]
    assert len(norms) == 5 and {norm.eps for norm in norms} == {1e-6}


def test_heads_that_share_keys_and_values_are_heads_with_equal_ones(rng):
    """Queries that share keys and values give the same as queries with a copy each."""
    shared = spread(make(**{**LLAMA, "num_layers": 1}).astype("float64"), rng)
    apart = make(**{**LLAMA, "num_layers": 1, "num_kv_heads": 4}).astype("float64")
    state = shared.state_dict()
    name = "decoder_layers.0.multi_head_attention.qkv_proj.weight"
    q, k, v = np.split(state[name], [8, 12])  # 4 heads of size 2, and twice 2
    copies = [part.reshape(2, 2, 8).repeat(2, axis=0).reshape(8, 8) for part in (k, v)]
    state[name] = np.concatenate([q, *copies])
    apart.load_state_dict(state)
    ids = ids_of(rng)
    np.testing.assert_allclose(shared(ids).numpy(), apart(ids).numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_model": 10, "num_heads": 4}, r"d_model \(10\) must be divisible by num_heads \(4\)"),
        ({"d_model": 6, "num_heads": 2, "positions": "rotary"}, "must be even, it is 3"),
        ({"head_size": 3, "positions": "rotary"}, "head_size must be even, it is 3"),
        ({"num_heads": 4, "num_kv_heads": 3}, r"\(4\) must be divisible by num_kv_heads \(3\)"),
        ({"num_kv_heads": -1}, "num_kv_heads must not be negative, it is -1"),
        ({"norm_eps": 0.0}, "norm_eps must be positive, it is 0.0"),
        ({"rope_base": math.inf}, "rope_base must be positive, it is inf"),
        ({"rope_factor": 2.0}, "rope_factor is 2.0, but rope_scaling is 'none'"),
        ({"rope_low_freq": 4.0}, r"rope_low_freq \(4.0\) must be less than rope_high_freq \(4.0\)"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), it is 1.0"),
        ({"num_layers": 0}, "num_layers must be at least 1, it is 0"),
        ({"norm": "batch"}, "norm must be one of 'layer', 'rms', not 'batch'"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        ModelConfig(**{**TINY, **options})


def test_bad_ids_are_refused(rng):
    model = make()
    with pytest.raises(IndexError, match="id 11 is out of range for a vocabulary of 11"):
        model(np.array([[1, 11]]))
    with pytest.raises(IndexError, match="id -1 is out of range"):
        model(np.array([[1, -1]]))
    with pytest.raises(mg.ShapeError, match="8 tokens is longer than max_seq_len"):
        model(ids_of(rng, 1, 8))
    with pytest.raises(mg.ShapeError, match=r"must be \(B, T\), not \(3,\)"):
        model(np.array([1, 2, 3]))
