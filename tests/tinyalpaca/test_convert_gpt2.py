"""A small GPT-2 made by `transformers`, converted: the same logits, ids and greedy text."""

import json

import numpy as np
import pytest

from tests.tinyalpaca.runs import MODEL, final_weights, train, write_text
from tests.tinyalpaca.tiny_models import TEXT
from tinyalpaca import cli
from tinyalpaca.config import ModelConfig
from tinyalpaca.generation import Generator
from tinyalpaca.runs import load_model

torch = pytest.importorskip("torch", reason="PyTorch is not installed to compare with")
pytestmark = pytest.mark.filterwarnings("ignore")  # warnings of transformers


@pytest.fixture(scope="module")
def converted(gpt2, tmp_path_factory):
    out = tmp_path_factory.mktemp("converted") / "out"
    assert cli.main(["convert", str(gpt2[0]), str(out)]) == 0
    return Generator.from_checkpoint(out)


def test_a_run_begins_with_it(gpt2, converted, tmp_path):
    """Weights, sizes and tokenizer are used, and a few steps do not destroy what was learned."""
    folder = tmp_path / "out"
    assert cli.main(["convert", str(gpt2[0]), str(folder)]) == 0
    text = write_text(tmp_path)
    sizes = {name: getattr(ModelConfig, name) for name in MODEL}  # defaults: as in the file
    settings = {"init_from": str(folder), "epochs": 1, "learning_rate": 1e-9, "weight_decay": 0.0}
    run = train(tmp_path / "run", text, sizes, seq_len=17, **settings)
    assert run.model.config == converted.model.config
    assert run.tokenizer.vocabulary == converted.tokenizer.vocabulary
    before = converted.model.state_dict()
    for name, weights in final_weights(tmp_path / "run").items():
        np.testing.assert_allclose(weights, before[name], rtol=0, atol=1e-6, err_msg=name)


def test_equal_ids(gpt2, converted):
    for text in (TEXT, "  two spaces\n\nnaïve 🦙", "x<|endoftext|>y"):
        theirs = gpt2[2](text.replace("<|endoftext|>", ""))["input_ids"]
        assert converted.tokenizer.encode(text.replace("<|endoftext|>", "")) == theirs
    special = converted.tokenizer.encode("a<|endoftext|>", allowed_special="all")
    assert special == gpt2[2]("a<|endoftext|>")["input_ids"]


def test_equal_logits(gpt2, converted):
    ids = converted.tokenizer.encode(TEXT)[:40]
    assert len(ids) == 40
    with torch.no_grad():
        expected = gpt2[1](torch.tensor([ids])).logits.numpy()
    ours = converted.model(np.array([ids])).numpy()
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4)
    assert np.abs(expected).max() > 1


def test_equal_greedy_text(gpt2, converted):
    """transformers may choose tokens that the tokenizer lacks; here they are excluded."""
    _, model, tokenizer = gpt2
    ids = tokenizer("the cat", return_tensors="pt")
    size = converted.tokenizer.vocab_size
    theirs = model.generate(
        **ids,
        max_new_tokens=30,
        do_sample=False,
        eos_token_id=None,
        suppress_tokens=list(range(size, size + 3)),
    )[0, ids["input_ids"].shape[1] :].tolist()
    everything = {"allow_all_tokens": True, "stop_at_end": False}
    ours = converted.generate("the cat", 30, temperature=0, return_logprobs=True, **everything)
    assert ours.tokens == theirs
    assert ours.text == tokenizer.decode(theirs, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize(
    "setting",
    [
        {"temperature": 0.8},
        {"temperature": 1.3, "top_k": 20},
        {"temperature": 1.3, "top_p": 0.7},
        {"temperature": 0.9, "min_p": 0.1},
        {
            "temperature": 1.4,
            "top_k": 30,
            "top_p": 0.8,
            "min_p": 0.05,
            "repetition_penalty": 1.4,
        },
        {"temperature": 0.5, "top_p": 0.5, "repetition_penalty": 0.7},
    ],
)
def test_the_filters_and_their_order_are_hugging_faces(gpt2, setting):
    """Compares the distributions of their `generate` with our filters on the same raw logits."""
    from tinyalpaca.generation.sampling import Sampling, filtered, penalised

    _, model, tokenizer = gpt2
    ids = tokenizer("the cat sat", return_tensors="pt")
    torch.manual_seed(1)
    theirs = {"top_k": 0, "top_p": 1.0, "min_p": None, "repetition_penalty": 1.0, **setting}
    result = model.generate(
        **ids,
        **theirs,
        max_new_tokens=12,
        do_sample=True,
        eos_token_id=None,
        return_dict_in_generate=True,
        output_scores=True,
        output_logits=True,
    )
    tokens = result.sequences[0].tolist()
    prompt = ids["input_ids"].shape[1]
    left_out = 0
    for step, (raw, scores) in enumerate(zip(result.logits, result.scores, strict=True)):
        seen = np.zeros(raw.shape, bool)
        seen[0, tokens[: prompt + step]] = True
        sampling = Sampling(**setting)
        ours = filtered(penalised(raw.numpy(), seen, sampling.repetition_penalty), sampling)
        np.testing.assert_allclose(ours, scores.numpy(), rtol=1e-5)
        left_out += int(np.isinf(ours).sum())
    assert (left_out > 0) == (len(setting) > 1 and set(setting) != {"temperature"})


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"activation_function": "tanh"}, "activation_function 'tanh' is not one of"),
        ({"layer_norm_epsilon": "small"}, "norm_eps must be float, not 'small'"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
        ({"n_embd": None}, "not a configuration of a GPT-2"),
        ({"n_layer": 4}, "there is no tensor 'h.3.ln_1.weight'"),
        ({"n_positions": 41}, "wrong shape: embedding.pos_embed"),
    ],
)
def test_a_gpt2_that_we_cannot_compute_is_refused(gpt2, tmp_path, capsys, setting, message):
    for file in gpt2[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**config, **setting}), encoding="utf-8")
    assert cli.main(["convert", str(tmp_path), str(tmp_path / "out")]) == 1
    assert message in capsys.readouterr().err


def test_a_norms_epsilon_is_the_configurations(gpt2, tmp_path):
    for file in gpt2[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    config["layer_norm_epsilon"] = 0.5
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert cli.main(["convert", str(tmp_path), str(tmp_path / "out")]) == 0
    ids = np.arange(20)[None]
    with torch.no_grad():
        expected = type(gpt2[1]).from_pretrained(tmp_path)(torch.tensor(ids)).logits.numpy()
        other = gpt2[1](torch.tensor(ids)).logits.numpy()
    ours = load_model(tmp_path / "out").model(ids).numpy()
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4)
    assert np.abs(ours - other).max() > 0.1


def test_a_folder_without_weights_says_how_to_save_them(gpt2, tmp_path, capsys):
    (tmp_path / "config.json").write_bytes((gpt2[0] / "config.json").read_bytes())
    assert cli.main(["convert", str(tmp_path), str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert "has no weights: neither model.safetensors nor pytorch_model.bin" in error


def test_the_converted_model_is_an_ordinary_checkpoint(converted, tmp_path):
    from tinyalpaca.runs import save_model

    save_model(tmp_path, converted.model, converted.tokenizer)
    again = Generator(*load_model(tmp_path)[:2])
    assert again.generate("the", 10, seed=1) == converted.generate("the", 10, seed=1)
