"""Models to and from PyTorch: files of the original and of GPT-2."""

import io
import json
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minigrad.storage import load_safetensors, save_safetensors
from tests.tinyalpaca.tiny_models import TEXT, tiny_model, tiny_tokenizer
from tinyalpaca import cli
from tinyalpaca.generation import Generator
from tinyalpaca.runs import load_model, save_model
from tinyalpaca.tokenizer.original_vocab import OriginalTokenizer

torch = pytest.importorskip("torch", reason="PyTorch is not installed to convert from and to")

from tests.tinyalpaca.torch_model import TorchAlpaca, twin_of  # noqa: E402

ROOT = Path(__file__).parents[2]
TOKENS = ["▁", "[UNK]", "\n", *"abcdehmnst,", "th", "the", "at", "▁that"]


@pytest.fixture
def original(tmp_path):
    """The two files of a small model of the original, and the PyTorch model."""
    model = tiny_model(vocab_size=len(TOKENS), max_seq_len=16)
    twin = twin_of(model, torch.float32)
    torch.save(twin.state_dict(), tmp_path / "tinyalpaca.pth")
    vocabulary = json.dumps(dict(enumerate(TOKENS)), ensure_ascii=False)
    (tmp_path / "training_vocab.json").write_text(vocabulary, encoding="utf-8")
    return twin


def convert(*arguments):
    return cli.main(["convert", *map(str, arguments)])


def files(folder):
    return folder / "tinyalpaca.pth", folder / "training_vocab.json"


def greedy(twin, ids, count, context):
    """PyTorch's greedy continuation, within the context."""
    ids = list(ids)
    for _ in range(count):
        with torch.no_grad():
            ids.append(int(twin(torch.tensor([ids[-context:]]))[0, -1].argmax()))
    return ids[-count:]


def test_the_originals_model_converts_and_writes_the_same(tmp_path, original, capsys):
    """Sizes are read from the tensors. Logits differ by less than 1e-4; greedy text is equal."""
    assert convert(*files(tmp_path), tmp_path / "out", "--num-heads", 3) == 0
    assert (
        "2 layers, d_model 24, d_ff 40, 3 heads, context 16, 18 tokens" in capsys.readouterr().out
    )
    model, tokenizer, _ = load_model(tmp_path / "out")
    assert isinstance(tokenizer, OriginalTokenizer)
    ids = tokenizer.encode("the mat, that cat")
    with torch.no_grad():
        expected = original(torch.tensor([ids])).numpy()
    np.testing.assert_allclose(model(np.array([ids])).numpy(), expected, rtol=0, atol=1e-4)
    generator = Generator(model, tokenizer)
    result = generator.generate("the mat", 8, temperature=0, return_logprobs=True)
    assert result.tokens == greedy(original, tokenizer.encode("the mat"), 8, 16)


def test_a_state_dict_loads_unchanged(original):
    model = tiny_model(vocab_size=len(TOKENS), max_seq_len=16, seed=5)
    model.load_state_dict({name: value.numpy() for name, value in original.state_dict().items()})
    ids = np.array([[3, 1, 4, 1, 5]])
    with torch.no_grad():
        expected = original(torch.from_numpy(ids)).numpy()
    np.testing.assert_allclose(model(ids).numpy(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod."])
@pytest.mark.parametrize("under", [None, "model_state_dict"])
def test_what_wrapped_the_model_when_it_was_saved_does_not_matter(
    tmp_path, original, prefix, under
):
    state = {prefix + name: value for name, value in original.state_dict().items()}
    torch.save({under: state, "epoch": 3} if under else state, tmp_path / "tinyalpaca.pth")
    assert convert(*files(tmp_path), tmp_path / "out", "--num-heads", 3) == 0
    weights, _ = load_safetensors(tmp_path / "out" / "model.safetensors")
    for name, value in original.state_dict().items():
        np.testing.assert_array_equal(weights[name], value.numpy())


def test_there_and_back_is_the_same_bit_for_bit(tmp_path, original):
    convert(*files(tmp_path), tmp_path / "out", "--num-heads", 3)
    assert convert(tmp_path / "out", tmp_path / "back" / "a.safetensors", "--to", "torch") == 1
    (tmp_path / "back").mkdir()
    assert convert(tmp_path / "out", tmp_path / "back" / "a.safetensors", "--to", "torch") == 0
    from safetensors.torch import load_file

    loaded = TorchAlpaca(load_model(tmp_path / "out").model.config)
    loaded.load_state_dict(load_file(tmp_path / "back" / "a.safetensors"))
    for name, value in original.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    vocabulary = json.loads((tmp_path / "back" / "training_vocab.json").read_text("utf-8"))
    assert list(vocabulary.values()) == TOKENS


@pytest.mark.parametrize("tied", [False, True])
def test_our_own_models_load_in_the_originals_classes(tmp_path, tied, capsys):
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer.vocab_size, tie_weights=tied)
    save_model(tmp_path, model, tokenizer)
    assert convert(tmp_path, tmp_path / "torch.safetensors", "--to", "torch") == 0
    assert capsys.readouterr().out == f"wrote {tmp_path / 'torch.safetensors'}\n"
    from safetensors.torch import load_file

    twin = TorchAlpaca(model.config)
    twin.load_state_dict(load_file(tmp_path / "torch.safetensors"))
    ids = np.array([tokenizer.encode(TEXT)[:11]])
    with torch.no_grad():
        expected = twin(torch.from_numpy(ids)).numpy()
    np.testing.assert_allclose(model(ids).numpy(), expected, rtol=0, atol=1e-4)


def test_what_the_original_cannot_compute_is_refused(tmp_path, capsys):
    tokenizer = tiny_tokenizer()
    save_model(tmp_path, tiny_model(tokenizer.vocab_size, pre_norm=True, norm="rms"), tokenizer)
    assert convert(tmp_path, tmp_path / "x.safetensors", "--to", "torch") == 1
    assert "pre_norm = True, norm = 'rms'" in capsys.readouterr().err
    assert not (tmp_path / "x.safetensors").exists()


def test_heads_are_asked_for_on_a_terminal(tmp_path, original):
    command = [sys.executable, "-m", "tinyalpaca", "convert", *files(tmp_path), tmp_path / "out"]
    ours, theirs = pty.openpty()
    with (
        open(ours, "wb", buffering=0) as terminal,
        subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, cwd=ROOT) as process,
    ):
        terminal.write(b"3\n")
        out = process.stdout.read().decode()
    assert process.returncode == 0
    assert "How many attention heads has the model? (1, 2, 3, 4, 6, 8, 12, 24; default 4)" in out
    assert load_model(tmp_path / "out").model.config.num_heads == 3


@pytest.mark.parametrize(
    ("typed", "message"),
    [("", "was not converted: give --num-heads"), ("many\n", "'many' is not a number of heads")],
)
def test_no_answer_or_a_wrong_one(tmp_path, original, capsys, monkeypatch, typed, message):
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    assert convert(*files(tmp_path), tmp_path / "out") == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_a_terminal_the_error_says_what_is_possible(tmp_path, original, capsys):
    assert convert(*files(tmp_path), tmp_path / "out") == 1
    assert (
        "(d_model 24 allows 1, 2, 3, 4, 6, 8, 12, 24): give --num-heads" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("final_linear.weight"), "no matrix 'final_linear.weight'"),
        (
            lambda s: s.pop("decoder_layers.1.ffn.fc2.bias"),
            "missing: decoder_layers.1.ffn.fc2.bias",
        ),
        (lambda s: s.update(extra=torch.ones(2)), "unexpected: extra"),
        (
            lambda s: s.update({"final_linear.weight": torch.ones(18, 25)}),
            "final_linear.weight has d_model 25, where it is 24 elsewhere",
        ),
    ],
)
def test_weights_of_another_model_are_refused_by_name(tmp_path, original, capsys, change, message):
    state = original.state_dict()
    change(state)
    torch.save(state, tmp_path / "tinyalpaca.pth")
    assert convert(*files(tmp_path), tmp_path / "out", "--num-heads", 3) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_mistakes_are_one_line(tmp_path, original, capsys):
    def error(*arguments):
        assert convert(*arguments) == 1
        message = capsys.readouterr().err
        assert message.startswith("error: ")
        return message

    assert "d_model (24) must be divisible by num_heads (5)" in error(
        *files(tmp_path), tmp_path / "out", "--num-heads", 5
    )
    assert "give the original's weights and its training_vocab.json" in error(
        files(tmp_path)[0], tmp_path / "out"
    )
    assert "No such file" in error("nothing.pth", files(tmp_path)[1], tmp_path / "out")
    vocabulary = dict(enumerate([*TOKENS, "more", "tokens"]))
    files(tmp_path)[1].write_text(json.dumps(vocabulary), encoding="utf-8")
    assert "the vocabulary has 20 tokens, the model only 18" in error(
        *files(tmp_path), tmp_path / "out", "--num-heads", 3
    )
    save_model(tmp_path, tiny_model(276), tiny_tokenizer())
    assert "already holds a model" in error(*files(tmp_path), tmp_path, "--num-heads", 3)


def test_safetensors_of_the_original_convert_too(tmp_path, original):
    tensors = {name: value.numpy() for name, value in original.state_dict().items()}
    save_safetensors(tensors, tmp_path / "a.safetensors", dtype="float16")
    vocabulary = files(tmp_path)[1]
    assert convert(tmp_path / "a.safetensors", vocabulary, tmp_path / "out", "--num-heads", 3) == 0
    assert Generator.from_checkpoint(tmp_path / "out").generate("the", 3, seed=0)
