"""Folders of Hugging Face's with models of real sizes and random weights, to be timed."""

from __future__ import annotations

import shutil
from pathlib import Path

from minigrad import Generator
from tinyalpaca.config import ModelConfig
from tinyalpaca.converting.gpt2_export import save_for_gpt2
from tinyalpaca.model import TinyAlpaca
from tinyalpaca.runs import save_model
from tinyalpaca.tokenizer import BPETokenizer

GPT2 = ModelConfig(
    vocab_size=50257,
    d_model=768,
    d_ff=3072,
    num_heads=12,
    num_layers=12,
    max_seq_len=1024,
    pre_norm=True,
    activation="gelu_tanh",
    bias=False,  # they are written as zeros
    tie_weights=True,
)


def tokenizer_of(vocab_size: int) -> BPETokenizer:
    """One of so many tokens, of which all but 256 are two bytes long."""
    pairs = [(left, right) for left in range(256) for right in range(256)]
    return BPETokenizer.from_merges(pairs[: vocab_size - 256])


def write_gpt2(folder: Path, config: ModelConfig = GPT2) -> None:
    """GPT-2, as `transformers` and ours load it."""
    ours = folder / "ours"
    ours.mkdir(parents=True)
    model = TinyAlpaca(config, Generator(0))
    save_model(ours, model, tokenizer_of(config.vocab_size))
    save_for_gpt2(ours, folder)
    shutil.rmtree(ours)
