"""Models of real sizes with random weights, and the contenders that generate with them.

The models are in folders of Hugging Face's format, which both sides load.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from minigrad import Generator as RandomGenerator
from tinyalpaca.config import ModelConfig
from tinyalpaca.converting.huggingface_export import save_for_huggingface
from tinyalpaca.generation import Generator
from tinyalpaca.model import TinyAlpaca
from tinyalpaca.runs import save_model
from tinyalpaca.tokenizer import BPETokenizer

COMMON: dict[str, Any] = {"pre_norm": True, "tie_weights": True, "bias": False}
CONFIGS = {
    "gpt2": ModelConfig(
        **COMMON,  # the folder has GPT-2's biases, which are 0
        vocab_size=50257,
        d_model=768,
        d_ff=3072,
        num_heads=12,
        num_layers=12,
        max_seq_len=1024,
        activation="gelu_tanh",
    ),
    "llama-135m": ModelConfig(  # SmolLM-135M's shape
        **COMMON,
        vocab_size=49152,
        d_model=576,
        d_ff=1536,
        num_heads=9,
        num_kv_heads=3,
        num_layers=30,
        max_seq_len=2048,
        norm="rms",
        positions="rotary",
        activation="swiglu",
    ),
}
PROMPT, LONG = 64, 512  # tokens


def write_folder(folder: Path, workload: str) -> None:
    """Write a model and a tokenizer, whose merged tokens are two bytes long."""
    config, ours = CONFIGS[workload], folder / "ours"
    ours.mkdir(parents=True)
    pairs = [(left, right) for left in range(256) for right in range(256)]
    tokenizer = BPETokenizer.from_merges(pairs[: config.vocab_size - 256])
    save_model(ours, TinyAlpaca(config, RandomGenerator(0)), tokenizer)
    save_for_huggingface(ours, folder, workload.partition("-")[0])
    shutil.rmtree(ours)


def prompt_of(length: int) -> list[int]:
    """A prompt of token ids that both models have."""
    return np.random.default_rng(0).integers(0, 49000, length).tolist()


class Writer:
    """The calls that are timed for both contenders.

    Args:
        tokens: the number of tokens that `one` writes.
    """

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def write(self, prompt: int, tokens: int) -> list[int]:
        """Write `tokens` tokens greedily, after a prompt of `prompt` tokens."""
        raise NotImplementedError

    def greedy(self) -> list[int]:
        """A greedy text, for comparison."""
        return self.write(PROMPT, 8)

    def one(self) -> None:
        """Write a text after a short prompt."""
        self.write(PROMPT, self.tokens)

    def first(self) -> None:
        """Write the first token after a long prompt."""
        self.write(LONG, 1)


class Ours(Writer):
    """minigrad's contender.

    Args:
        folder: the model's folder.
    """

    def __init__(self, folder: str, tokens: int) -> None:
        super().__init__(tokens)
        self.generator = Generator.from_checkpoint(folder)

    def write(self, prompt: int, tokens: int) -> list[int]:
        options: dict[str, Any] = {"allow_all_tokens": True, "stop_at_end": False}
        steps = self.generator.steps(prompt_of(prompt), tokens, 0, alternatives=None, **options)
        return [step.token for step in steps]


class Peer(Writer):
    """PyTorch's contender, by `transformers` with a cache of fixed size.

    Args:
        folder: the model's folder.
        compiled: whether the step is compiled by `torch.compile`.
        threads: the number of PyTorch's threads.
    """

    def __init__(self, folder: str, tokens: int, compiled: bool, threads: int) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        super().__init__(tokens)
        torch.set_num_threads(threads)
        self.torch = torch
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        if compiled:
            self.model.forward = torch.compile(self.model.forward, dynamic=False)

    def write(self, prompt: int, tokens: int) -> list[int]:
        ids = self.torch.tensor([prompt_of(prompt)])
        with self.torch.inference_mode():
            written = self.model.generate(
                ids,
                attention_mask=self.torch.ones_like(ids),
                pad_token_id=0,
                max_new_tokens=tokens,
                min_new_tokens=tokens,
                do_sample=False,
                cache_implementation="static",
            )
        return written[0, prompt:].tolist()
