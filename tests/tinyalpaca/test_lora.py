"""LoRA: only correct adapters are trained and saved, and they can be merged."""

import json

import numpy as np
import pytest

import minigrad as mg
from minigrad.storage import FileFormatError, load_safetensors
from tests.tinyalpaca.runs import MODEL, assert_same_weights, resume, train, write_text
from tinyalpaca import Generator, ModelConfig, TinyAlpaca, load, save
from tinyalpaca.cli import main
from tinyalpaca.config import ConfigError
from tinyalpaca.lora import LoRA, LoRALinear, add_adapters, merge, weights_to_save

ALL = "*.qkv_proj,*.out_proj,*.fc1,*.fc2,final_linear"


def adapted(rng, layers=ALL, **changes):
    """A model with adapters that are not 0, and the model before."""
    config = ModelConfig(**{**MODEL, "vocab_size": 11, **changes})
    models = [TinyAlpaca(config, mg.Generator(0)) for _ in range(2)]
    add_adapters(models[0], LoRA(2, 6.0, layers), mg.Generator(1))
    for name, parameter in models[0].named_parameters():
        if name.endswith("lora_b"):
            parameter.assign(rng.standard_normal(parameter.shape).astype(np.float32) * 0.3)
    return models


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_the_formula_and_its_gradients(rng, activation):
    model, before = adapted(rng, activation=activation)
    layer = model.decoder_layers[0].ffn.fc1
    assert type(layer) is LoRALinear
    x = rng.standard_normal((3, 8)).astype(np.float32)
    w, a, b = (p.numpy().astype(float) for p in (layer.weight, layer.lora_a, layer.lora_b))
    wanted = x @ w.T + layer.bias.numpy() + 6.0 / 2 * (x @ a.T) @ b.T
    np.testing.assert_allclose(layer(mg.Tensor(x)).numpy(), wanted, atol=1e-5)
    ids = np.array([[1, 5, 2, 9]])
    assert np.abs(model(ids).numpy() - before(ids).numpy()).max() > 0.1
    exact = model.astype("float64")
    mg.gradcheck_module(exact, [mg.Tensor(ids)])
    trained = [name for name, p in exact.named_parameters() if p.requires_grad]
    assert trained and all(name.endswith(("lora_a", "lora_b")) for name in trained)


DEFAULT = {"d_model": 64, "num_heads": 4, "num_layers": 4, "d_ff": 256}


@pytest.mark.parametrize(
    ("sizes", "dtype", "absolute", "relative"),
    [
        ({}, "float32", 1e-6, 1e-6),  # measured: 7e-7 where the largest logit is 1.8
        # Measured: 3e-6, and 1.3e-6 relative to the largest logit, 2.9. These are rounding errors
        # of four layers, as in float64 it is 3e-15. Adapters of 0.3 are as large as the weights.
        (DEFAULT, "float32", 6e-6, 3e-6),
        (DEFAULT, "float64", 1e-13, 1e-13),
    ],
)
def test_merged_is_unmerged(rng, sizes, dtype, absolute, relative):
    """Up to 1e-6, absolute and relative to the largest logit; more for the larger model."""
    model = adapted(rng, **sizes)[0].astype(dtype).eval()
    ids = rng.integers(0, 11, (2, 16))
    before = model(ids).numpy()
    merge(model)
    apart = np.abs(model(ids).numpy() - before).max()
    assert apart <= absolute and apart <= relative * np.abs(before).max() and apart > 0
    assert all(p.requires_grad for p in model.parameters())
    assert weights_to_save(model).keys() == model.state_dict().keys()


def test_at_first_adapters_change_nothing(rng):
    config = ModelConfig(**MODEL, vocab_size=11)
    model, before = (TinyAlpaca(config, mg.Generator(0)) for _ in range(2))
    add_adapters(model, LoRA(4, 16.0, ALL), mg.Generator(1))
    ids = rng.integers(0, 11, (2, 16))
    np.testing.assert_array_equal(model(ids).numpy(), before(ids).numpy())


@pytest.mark.parametrize(
    ("lora", "changes", "problem"),
    [
        (LoRA(0, 1.0, ALL), {}, "at least 1"),
        (LoRA(1, 1.0, "*.wheel"), {}, "matches none"),
        (LoRA(1, 1.0, ALL), {"tie_weights": True}, "takes no adapter"),
    ],
)
def test_adapters_that_make_no_sense(lora, changes, problem):
    model = TinyAlpaca(ModelConfig(**MODEL, vocab_size=11, **changes), mg.Generator(0))
    with pytest.raises(ConfigError, match=problem):
        add_adapters(model, lora, mg.Generator(0))


@pytest.fixture(scope="module")
def base(tmp_path_factory, request):
    """A trained model, and a text that was not in its training."""
    folder = tmp_path_factory.mktemp("base")
    text = write_text(folder)
    train(folder / "run", text, save_minutes=0.0)
    words = np.array(["speak ", "no ", "thou ", "the king "])
    chosen = np.random.default_rng(3).integers(0, len(words), 400)
    other = folder / "other.txt"
    other.write_text("".join(words[chosen]), encoding="utf-8")
    return folder / "run", other


def tune(folder, base, **settings):
    path, text = base
    sizes = {name: getattr(ModelConfig, name) for name in MODEL}
    given = {"init_from": str(path), "lora_rank": 2, "lora_layers": ALL, "learning_rate": 0.02}
    return train(folder, text, sizes, **{**given, **settings})


def test_a_run_trains_and_saves_adapters_alone(tmp_path, base):
    run = tune(tmp_path / "run", base, preflight=True)
    assert run.records[-1]["val_loss"] < run.records[0]["val_loss"] < run.metrics.losses[0][1]
    saved, _ = load_safetensors(tmp_path / "run/model.safetensors")
    assert saved and all(name.endswith(("lora_a", "lora_b")) for name in saved)
    apart, merged = load(tmp_path / "run", merged=False), load(tmp_path / "run")
    ids = np.array([[1, 2, 3, 4]])
    np.testing.assert_array_equal(apart.model(ids).numpy(), run.model.eval()(ids).numpy())
    np.testing.assert_allclose(merged.model(ids).numpy(), apart.model(ids).numpy(), 1e-6, 1e-6)
    original = load(base[0]).model.state_dict()
    for name, value in apart.model.state_dict().items():
        assert name in saved or np.array_equal(value, original[name])
    texts = [Generator(x.model, x.tokenizer).generate("the ", 9, seed=1) for x in (apart, merged)]
    assert texts[0] == texts[1]


GPT2 = {"pre_norm": True, "activation": "gelu_tanh", "tie_weights": True, "num_layers": 2}


def write_chain(path, step, other):
    """Write a text of eight words. The next word is `step` words on, or sometimes `other` words."""
    words = ("the ", "king ", "and ", "queen ", "speak ", "no ", "more,\n", "thou ")
    moves = np.where(np.random.default_rng(step).random(600) < 0.8, step, other)
    path.write_text("".join(words[n % 8] for n in np.cumsum(moves)), encoding="utf-8")
    return path


def test_a_model_like_gpt2_gets_better_on_text_that_it_has_not_seen(tmp_path):
    """The same words in another order, with a held-out part. Only adapters are trained."""
    first = write_chain(tmp_path / "first.txt", 1, 3)
    second = write_chain(tmp_path / "second.txt", 5, 2)
    train(tmp_path / "gpt2", first, GPT2, epochs=12)
    settings = {"lora_layers": "decoder_layers.*", "lora_rank": 4, "epochs": 6}
    tune(tmp_path / "tuned", (tmp_path / "gpt2", second), **settings)
    before, after = (Generator.from_checkpoint(tmp_path / name) for name in ("gpt2", "tuned"))

    def score(model, path):
        text = path.read_text(encoding="utf-8")
        return model.score(text[-len(text) // 10 :]).nats_per_character

    # Measured: 1.6 nats per character before and 0.6 after; 0.8 for the text learned first.
    assert score(after, second) < 0.5 * score(before, second)
    assert score(after, second) < score(before, first) < 0.6 * score(before, second)


def test_it_resumes_bit_for_bit(tmp_path, base):
    whole = tune(tmp_path / "whole", base, ema=0.9)
    tune(tmp_path / "parts", base, ema=0.9, max_steps=4)
    resumed = resume(tmp_path / "parts", max_steps=0)
    assert resumed.records[-1]["val_loss"] == whole.records[-1]["val_loss"]
    assert_same_weights(tmp_path / "parts", tmp_path / "whole")


def test_a_merged_model_stands_alone(tmp_path, base):
    tune(tmp_path / "run", base, max_steps=3)
    assert main(["convert", str(tmp_path / "run"), str(tmp_path / "merged")]) == 0
    ours, alone = load(tmp_path / "run").model, load(tmp_path / "merged").model
    for name, value in alone.state_dict().items():
        assert np.array_equal(value, ours.state_dict()[name])
    assert "lora" not in json.loads((tmp_path / "merged/config.json").read_text(encoding="utf-8"))


def test_a_base_that_has_changed_or_gone_is_an_error(tmp_path, base):
    model = load(base[0])
    (tmp_path / "base").mkdir()
    save(tmp_path / "base", model.model, model.tokenizer)
    tune(tmp_path / "run", (tmp_path / "base", base[1]), max_steps=2)
    model.model.final_linear.weight.assign(model.model.final_linear.weight.array * 2)
    save(tmp_path / "base", model.model, model.tokenizer)
    with pytest.raises(FileFormatError, match="other weights"):
        load(tmp_path / "run")
    (tmp_path / "base").rename(tmp_path / "elsewhere")
    with pytest.raises(FileFormatError, match="is not there"):
        load(tmp_path / "run")


def test_settings_that_do_not_go_together(tmp_path, base):
    with pytest.raises(ConfigError, match="give --init-from"):
        tune(tmp_path / "run", base, init_from="")
    with pytest.raises(ConfigError, match="leave --freeze out"):
        tune(tmp_path / "run", base, freeze="*.bias")
