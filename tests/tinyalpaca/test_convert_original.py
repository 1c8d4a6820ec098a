"""The original's published model is read with equal weights and writes the same tokens."""

import json

import numpy as np
import pytest

import minigrad as mg
from minigrad.storage import load_safetensors, load_torch
from tests.tinyalpaca.original_files import CONTINUATION, HEADS, PROMPT, original_files
from tinyalpaca import cli
from tinyalpaca.config import ModelConfig
from tinyalpaca.converting.original_weights import load_original
from tinyalpaca.generation import Generator
from tinyalpaca.model import TinyAlpaca
from tinyalpaca.runs import load_model

SIZES = {"vocab_size": 216, "d_model": 128, "d_ff": 512, "num_layers": 4, "max_seq_len": 128}


@pytest.fixture(scope="module")
def files():
    return original_files()


@pytest.fixture(scope="module")
def converted(files, tmp_path_factory):
    """The folder that `tinyalpaca convert` makes from the two files."""
    folder = tmp_path_factory.mktemp("converted")
    assert cli.main(["convert", *map(str, files), str(folder), "--num-heads", str(HEADS)]) == 0
    return folder


def test_the_file_of_weights_fits_as_it_is(files):
    """All names and shapes are as in our model, and no value is changed."""
    weights = load_torch(files[0])
    model = TinyAlpaca(ModelConfig(num_heads=HEADS, **SIZES), mg.Generator(0))
    assert list(model.state_dict()) == list(weights)
    model.load_state_dict(weights)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, weights[name], strict=True)


def test_sizes_are_read_off(converted):
    config = load_model(converted).model.config
    assert {name: getattr(config, name) for name in SIZES} == SIZES
    assert config.num_heads == HEADS


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_text_is_the_originals_token_for_token(files, dtype):
    """With the usual decoder, and also with the whole model for every token."""
    model, tokenizer = load_original(*files, HEADS)
    generator = Generator(model.astype(dtype), tokenizer)
    expected = tokenizer.encode(CONTINUATION)
    assert "".join(tokenizer.token_bytes(i).decode() for i in expected) == CONTINUATION
    count = len(expected)
    written = generator.generate(PROMPT, count, temperature=0, return_logprobs=True)
    assert written.tokens == expected and written.text == CONTINUATION
    with mg.textbook():
        assert generator.generate(PROMPT, count, temperature=0) == CONTINUATION


def test_the_command_prints_the_text(converted, files, capsys):
    tokens = len(load_model(converted).tokenizer.encode(CONTINUATION))
    command = ["generate", "--checkpoint", str(converted), "--prompt", PROMPT]
    command += ["--max-new-tokens", str(tokens), "--temperature", "0"]
    assert cli.main(command) == 0
    assert PROMPT + CONTINUATION in capsys.readouterr().out


def test_there_and_back_nothing_is_lost(converted, files, tmp_path):
    out = tmp_path / "tinyalpaca.safetensors"
    assert cli.main(["convert", str(converted), str(out), "--to", "torch"]) == 0
    back, there = load_safetensors(out)[0], load_torch(files[0])
    assert back.keys() == there.keys()
    for name, array in there.items():
        np.testing.assert_array_equal(back[name], array, strict=True)
    vocabularies = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in (files[1], tmp_path / "training_vocab.json")
    ]
    assert vocabularies[0] == vocabularies[1]


def test_classes_with_the_originals_names_load_both_strictly(converted, files, tmp_path):
    """They load the original's own file, so their names are right, and the file that we write."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed to load into")
    from safetensors.torch import load_file

    from tests.tinyalpaca.torch_model import TorchAlpaca

    model, tokenizer, _ = load_model(converted)
    out = tmp_path / "tinyalpaca.safetensors"
    assert cli.main(["convert", str(converted), str(out), "--to", "torch"]) == 0
    ids = tokenizer.encode(PROMPT + CONTINUATION)
    for state in (torch.load(files[0], "cpu", weights_only=True), load_file(out)):
        twin = TorchAlpaca(model.config)
        twin.load_state_dict(state, strict=True)
        with torch.no_grad():
            logits = twin(torch.tensor([ids]))[0].numpy()
        prompt = len(tokenizer.encode(PROMPT))
        assert logits[prompt - 1 : -1].argmax(-1).tolist() == ids[prompt:]
        np.testing.assert_allclose(model(np.array([ids])).numpy()[0], logits, rtol=0, atol=1e-4)
