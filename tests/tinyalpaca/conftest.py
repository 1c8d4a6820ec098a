"""Fixtures that several files share."""

import json
import signal

import pytest

from tests.tinyalpaca.tiny_models import tiny_tokenizer
from tinyalpaca.tokenizer.pretokenize import byte_alphabet


@pytest.fixture(scope="session", autouse=True)
def signals_as_in_a_terminal():
    """Handle signals as in a terminal: a shell ignores some signals for background processes."""
    before = {}
    for name in ("SIGINT", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_IGN:
            handler = signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL
            before[number] = signal.signal(number, handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def transformers():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield pytest.importorskip("transformers", reason="transformers is not installed")


@pytest.fixture(scope="module")
def gpt2(transformers, tmp_path_factory):
    """A folder in Hugging Face's format, with its model and tokenizer."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed to compare with")
    folder = tmp_path_factory.mktemp("gpt2")
    ours, alphabet = tiny_tokenizer(), byte_alphabet()
    names = ["".join(alphabet[byte] for byte in token) for token in ours.vocabulary]
    vocabulary = {name: index for index, name in enumerate([*names, "<|endoftext|>"])}
    merges = [f"{names[left]} {names[right]}" for left, right in ours.merges]
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    lines = "\n".join(["#version: 0.2", *merges, ""])
    (folder / "merges.txt").write_text(lines, encoding="utf-8")
    config = transformers.GPT2Config(
        vocab_size=len(vocabulary) + 3,
        n_positions=40,
        n_embd=24,
        n_layer=3,
        n_head=3,
        bos_token_id=len(names),
        eos_token_id=len(names),
    )
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms start at 0 and 1
            parameter += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    tokenizer = transformers.GPT2TokenizerFast.from_pretrained(folder)
    return folder, model, tokenizer
