"""Small models of the Llama family made by `transformers`: logits, text and gradients are equal."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import minigrad as mg
from minigrad import optim
from minigrad.storage import FileFormatError, load_safetensors, save_safetensors
from tests.tinyalpaca.llama_models import MODELS, save_tiny_llama
from tests.tinyalpaca.tiny_models import tiny_generator
from tinyalpaca import cli
from tinyalpaca.chat import ChatTemplate
from tinyalpaca.converting.huggingface import is_huggingface, load_huggingface
from tinyalpaca.converting.llama_weights import llama_config
from tinyalpaca.generation import Generator
from tinyalpaca.runs import load_model, save_model
from tinyalpaca.runs.config_file import read_config
from tinyalpaca.training.memory_need import count_parameters

torch = pytest.importorskip("torch", reason="PyTorch is not installed to compare with")
pytestmark = pytest.mark.filterwarnings("ignore")  # warnings of transformers

EVERYTHING = {"temperature": 0, "allow_all_tokens": True, "stop_at_end": False}
PROMPTS = ["the cat", "the hat and the bat; naïve llamas", "1234 mats"]


@pytest.fixture(scope="module")
def made(transformers, tmp_path_factory):
    """For each kind what `transformers` has made: folder, model, tokenizer."""
    found = {}

    def make(kind):
        if kind not in found:
            folder = tmp_path_factory.mktemp("theirs")
            found[kind] = (folder, *save_tiny_llama(transformers, kind, folder))
        return found[kind]

    return make


@pytest.fixture(params=MODELS)
def theirs(request, made):
    return made(request.param)


@pytest.fixture
def llama(made, tmp_path):
    """A copy of a Llama folder, which the test may change."""
    return shutil.copytree(made("llama")[0], tmp_path / "theirs")


def logits_of(model, ids):
    with torch.no_grad():
        return model(torch.tensor(ids)).logits.float().numpy()


def assert_same_logits(ours, model, atol=1e-4):
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, (2, 40))
    expected = logits_of(model, ids)
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(ours(ids).numpy(), expected, rtol=0, atol=atol)


def test_equal_logits(theirs):
    folder, model, _ = theirs
    ours = load_huggingface(folder)[0]
    assert_same_logits(ours, model)
    assert ours.num_parameters() == model.num_parameters()


def test_equal_logits_from_shards(transformers, tmp_path):
    model, _ = save_tiny_llama(transformers, "qwen2", tmp_path, max_shard_size="10KB")
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text(encoding="utf-8"))
    assert len(set(index["weight_map"].values())) > 2
    assert_same_logits(load_huggingface(tmp_path)[0], model)
    next(tmp_path.glob("model-00002-of-*")).unlink()
    with pytest.raises(FileNotFoundError, match="model-00002-of-"):
        load_huggingface(tmp_path)


def test_weights_in_bfloat16_and_an_older_configuration(transformers, tmp_path):
    """Before version 5, base and scaling of positions were separate settings."""
    model, _ = save_tiny_llama(transformers, "llama", tmp_path)
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    rope = content.pop("rope_parameters")
    content["rope_theta"] = rope.pop("rope_theta")
    content["rope_scaling"] = {**rope, "type": "llama3"}
    (tmp_path / "config.json").write_text(json.dumps(content), encoding="utf-8")
    again = type(model).from_pretrained(tmp_path, dtype=torch.float32)  # its angles were rounded
    assert_same_logits(load_huggingface(tmp_path)[0], again)


def greedy(model, tokenizer, prompt, count):
    """The text of their model, restricted to tokens that the tokenizer has."""
    ids = tokenizer(prompt, return_tensors="pt")
    size = len(tokenizer)
    return model.generate(
        **ids,
        max_new_tokens=count,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        suppress_tokens=list(range(size, size + 3)),
    )[0, ids["input_ids"].shape[1] :].tolist()


def test_equal_greedy_text_alone_and_together(theirs):
    """Prompts of several lengths, each continued by the same tokens as alone."""
    folder, model, tokenizer = theirs
    generator = Generator(*load_huggingface(folder))
    expected = [greedy(model, tokenizer, prompt, 12) for prompt in PROMPTS]
    alone = generator.generate(PROMPTS[0], 12, return_logprobs=True, **EVERYTHING)
    assert alone.tokens == expected[0]
    together = generator.generate(PROMPTS, 12, return_logprobs=True, **EVERYTHING)
    assert [continuation.tokens for continuation in together] == expected
    with mg.textbook():
        textbook = generator.generate(PROMPTS[1], 12, return_logprobs=True, **EVERYTHING)
    assert textbook.tokens == expected[1]


def as_theirs(ours, config):
    """Our gradients or weights under their names, with stacked matrices split."""
    heads, kv = config.num_heads * config.size_of_head, config.kv_heads * config.size_of_head
    names = {
        "embedding.token_embed": [("model.embed_tokens.weight", None)],
        "final_norm.weight": [("model.norm.weight", None)],
        "final_linear.weight": [("lm_head.weight", None)],
    }
    for n in range(config.num_layers):
        layer, there = f"decoder_layers.{n}", f"model.layers.{n}"
        for kind in ("weight", "bias"):
            names[f"{layer}.multi_head_attention.qkv_proj.{kind}"] = [
                (f"{there}.self_attn.q_proj.{kind}", slice(heads)),
                (f"{there}.self_attn.k_proj.{kind}", slice(heads, heads + kv)),
                (f"{there}.self_attn.v_proj.{kind}", slice(heads + kv, None)),
            ]
        names[f"{layer}.multi_head_attention.out_proj.weight"] = [
            (f"{there}.self_attn.o_proj.weight", None)
        ]
        names[f"{layer}.ffn.fc1.weight"] = [
            (f"{there}.mlp.gate_proj.weight", slice(config.d_ff)),
            (f"{there}.mlp.up_proj.weight", slice(config.d_ff, None)),
        ]
        names[f"{layer}.ffn.fc2.weight"] = [(f"{there}.mlp.down_proj.weight", None)]
        names[f"{layer}.layer_norm1.weight"] = [(f"{there}.input_layernorm.weight", None)]
        names[f"{layer}.layer_norm2.weight"] = [(f"{there}.post_attention_layernorm.weight", None)]
    return {
        name: array if part is None else array[part]
        for ours_name, array in ours.items()
        for name, part in names[ours_name]
    }


def test_a_fine_tuning_step_is_pytorchs(theirs):
    """Loss, gradients, and weights after a step of AdamW are equal."""
    folder, _, _ = theirs
    model = theirs[1].__class__.from_pretrained(folder).double().train()
    ours = load_huggingface(folder)[0].astype("float64").train()
    rng = np.random.default_rng(3)
    ids = rng.integers(0, model.config.vocab_size, (3, 21))

    loss = ours.loss(ids[:, :-1], ids[:, 1:])
    loss.backward()
    expected = model(torch.tensor(ids), labels=torch.tensor(ids)).loss
    expected.backward()

    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    found = as_theirs({n: p.grad.numpy() for n, p in ours.named_parameters()}, ours.config)
    gradients = {n: p.grad.numpy() for n, p in model.named_parameters()}
    assert found.keys() == gradients.keys()
    largest = max(np.abs(g).max() for g in gradients.values())
    for name, gradient in gradients.items():
        assert np.abs(found[name] - gradient).max() / largest < 1e-5, name  # their cos is float32

    optim.AdamW(ours.parameters(), lr=1e-3, weight_decay=0.1).step()
    torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1, eps=1e-8).step()
    found = as_theirs({n: p.numpy() for n, p in ours.named_parameters()}, ours.config)
    for name, parameter in model.named_parameters():
        change = np.abs(found[name] - parameter.detach().numpy())
        assert np.quantile(change, 0.99) < 1e-6, name  # for a gradient near 0 the sign is random


def test_a_loaded_model_is_an_ordinary_checkpoint(theirs, tmp_path):
    ours, tokenizer = load_huggingface(theirs[0])
    save_model(tmp_path, ours, tokenizer)
    again = load_model(tmp_path)
    assert again.model.config == ours.config
    assert again.tokenizer.fingerprint == tokenizer.fingerprint
    assert again.model.end_tokens == ours.end_tokens == (theirs[2].eos_token_id,)
    ids = np.arange(30)[None]
    np.testing.assert_array_equal(again.model(ids).numpy(), ours(ids).numpy())


def change_config(folder, **settings):
    path = folder / "config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, **settings}), encoding="utf-8")


YARN = {"rope_type": "yarn", "factor": 2.0, "rope_theta": 1e4}


# The settings that matter here of published configurations, and the models' numbers of weights.
REAL = {
    "SmolLM 135M": (
        {
            **{"model_type": "llama", "hidden_size": 576, "intermediate_size": 1536},
            **{"num_attention_heads": 9, "num_key_value_heads": 3, "num_hidden_layers": 30},
            **{"max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "tie_word_embeddings": True},
            **{"vocab_size": 49152, "rope_scaling": None, "rope_interleaved": False},
        },
        134_515_008,
    ),
    "Llama 3.2 1B": (
        {
            **{"model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192},
            **{"num_attention_heads": 32, "num_key_value_heads": 8, "num_hidden_layers": 16},
            **{"head_dim": 64, "max_position_embeddings": 131072, "tie_word_embeddings": True},
            **{"vocab_size": 128256, "rope_theta": 500000.0, "attention_bias": False},
            "rope_scaling": {
                **{"factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
                **{"original_max_position_embeddings": 8192, "rope_type": "llama3"},
            },
        },
        1_235_814_400,
    ),
    "Qwen2.5 0.5B": (
        {
            **{"model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864},
            **{"num_attention_heads": 14, "num_key_value_heads": 2, "num_hidden_layers": 24},
            **{"sliding_window": 32768, "use_sliding_window": False, "max_window_layers": 24},
            **{"vocab_size": 151936, "rope_theta": 1000000, "tie_word_embeddings": True},
        },
        494_032_768,
    ),
    "Mistral 7B v0.3": (
        {
            **{"model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336},
            **{"num_attention_heads": 32, "num_key_value_heads": 8, "num_hidden_layers": 32},
            **{"max_position_embeddings": 32768, "sliding_window": None, "vocab_size": 32768},
        },
        7_248_023_552,
    ),
}


@pytest.mark.parametrize("name", REAL)
def test_real_models_have_the_number_of_weights_that_is_known(name):
    theirs, weights = REAL[name]
    config = llama_config(Path("config.json"), {"hidden_act": "silu", **theirs})
    assert count_parameters(config) == weights
    assert config.size_of_head == theirs["hidden_size"] // theirs["num_attention_heads"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; only 'silu' is supported"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"mlp_bias": True}, "mlp_bias is True"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is"),
        ({"rope_parameters": YARN}, "rope_parameters: rope_type is 'yarn'; only default, linear"),
        (
            {"rope_parameters": None, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
            "rope_scaling: rope_type is 'dynamic'",
        ),
        ({"rope_parameters": {"rope_type": "linear"}}, "factor is missing, which 'linear' needs"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"model_type": "mamba"}, "model_type is 'mamba'; only gpt2, llama, mistral, qwen2"),
        ({"model_type": "mistral", "sliding_window": 8}, r"sliding_window is 8, less than max_pos"),
        ({"model_type": "qwen2", "use_sliding_window": True}, "use_sliding_window is True"),
        (
            {"model_type": "qwen2", "layer_types": ["full_attention", "sliding_attention"]},
            "layer_types is",
        ),
        ({"architectures": ["LlamaForSequenceClassification"]}, "architectures is"),
        ({"hidden_size": None}, "not a configuration of a llama"),
        ({"num_key_value_heads": 3}, r"must be divisible by num_kv_heads \(3\)"),
        ({"num_hidden_layers": 3}, "there is no tensor 'layers.2.self_attn.q_proj.weight'"),
        ({"num_hidden_layers": 1}, "9 tensors are none of a plain model's"),
        ({"head_dim": 10}, "wrong shape: decoder_layers.0.multi_head_attention"),
        ({"tie_word_embeddings": True}, "lm_head.weight is not the token embedding"),
    ],
    ids=str,
)
def test_what_we_cannot_compute_is_refused_by_name(llama, settings, message):
    change_config(llama, **settings)
    assert is_huggingface(llama)
    with pytest.raises(FileFormatError, match=message):
        load_huggingface(llama)


def test_a_window_that_hides_nothing_is_no_obstacle(made, tmp_path):
    folder = shutil.copytree(made("mistral")[0], tmp_path / "theirs")
    change_config(folder, sliding_window=40)
    assert_same_logits(load_huggingface(folder)[0], made("mistral")[1])


def test_tensors_that_would_change_the_results_are_refused(llama):
    tensors = dict(load_safetensors(llama / "model.safetensors")[0])
    save_safetensors(
        {**tensors, "model.layers.0.self_attn.q_proj.bias": np.ones(32, np.float32)},
        llama / "model.safetensors",
    )
    with pytest.raises(FileFormatError, match="1 tensors are none of a plain model's"):
        load_huggingface(llama)
    del tensors["lm_head.weight"]
    save_safetensors(tensors, llama / "model.safetensors")
    with pytest.raises(FileFormatError, match=r"there is no tensor 'lm_head.weight'"):
        load_huggingface(llama)


def test_training_from_such_a_folder_says_what_to_do_first(llama):
    with pytest.raises(
        FileFormatError, match=r"Hugging Face's, of a llama.*\n.*convert .*theirs OUT"
    ):
        read_config(llama)


# Our models in their format.


@pytest.mark.parametrize("kind", MODELS)
def test_transformers_load_what_we_write(transformers, made, tmp_path, kind):
    """A model that was read is written unchanged: logits in their class are bitwise identical."""
    folder, model, tokenizer = made(kind)
    ours, mine = load_huggingface(folder)
    ours.chat_template = ChatTemplate("{{ messages }}", {"unk_token": "a"})
    (tmp_path / "ours").mkdir()
    save_model(tmp_path / "ours", ours, mine)
    out = tmp_path / "theirs"
    assert cli.main(["convert", str(tmp_path / "ours"), str(out), "--to", "llama"]) == 0
    again = transformers.AutoModelForCausalLM.from_pretrained(out).eval()
    assert again.config.model_type == ("qwen2" if kind == "qwen2" else "llama")
    ids = np.random.default_rng(1).integers(0, model.config.vocab_size, (2, 40))
    np.testing.assert_allclose(logits_of(again, ids), logits_of(model, ids), rtol=0, atol=1e-5)
    back, same = load_huggingface(out)
    assert back.config == ours.config and same.fingerprint == mine.fingerprint
    assert (back.end_tokens, back.chat_template[0]) == (ours.end_tokens, "{{ messages }}")
    np.testing.assert_array_equal(back(ids).numpy(), ours(ids).numpy())
    theirs = transformers.AutoTokenizer.from_pretrained(out)
    assert theirs("the cat 12")["input_ids"] == tokenizer("the cat 12")["input_ids"]
    assert theirs.eos_token_id == tokenizer.eos_token_id


def test_what_llama_cannot_compute_is_refused(tmp_path, capsys):
    generator = tiny_generator(positions="rotary")
    save_model(tmp_path, generator.model, generator.tokenizer)
    assert cli.main(["convert", str(tmp_path), str(tmp_path / "out"), "--to", "llama"]) == 1
    error = capsys.readouterr().err
    assert "Llama cannot compute this model: it has pre_norm = False, norm = 'layer'" in error
    assert "activation = 'relu', bias = True" in error
