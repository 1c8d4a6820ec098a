"""Small models for generation, with weights far from initial ones, and a tokenizer."""

from typing import Any

import numpy as np

from minigrad import Generator as RandomGenerator
from tinyalpaca.config import ModelConfig
from tinyalpaca.generation import Generator
from tinyalpaca.model import TinyAlpaca
from tinyalpaca.tokenizer import BPETokenizer

TEXT = "the cat sat on the mat, the hat and the bat; naïve llamas 🦙 ate that, and that was that. "
LLAMA: dict[str, Any] = {  # like the Llama family; no two sizes are equal
    **{"pre_norm": True, "norm": "rms", "norm_eps": 1e-6, "activation": "swiglu", "bias": False},
    **{"positions": "rotary", "rope_base": 500.0, "qkv_bias": True},
    **{"num_heads": 4, "num_kv_heads": 2, "head_size": 10},
}


def tiny_model(vocab_size: int = 30, spread: float = 0.3, seed: int = 0, **options: Any) -> Any:
    """A model of about two thousand weights, which differ from initial ones by about `spread`."""
    sizes = {"d_model": 24, "d_ff": 40, "num_heads": 3, "num_layers": 2, "max_seq_len": 11}
    config = ModelConfig(vocab_size=vocab_size, **{**sizes, **options})
    model = TinyAlpaca(config, RandomGenerator(seed))
    rng = np.random.default_rng(seed)
    for parameter in model.parameters():
        noise = spread * rng.standard_normal(parameter.shape)
        parameter.assign((parameter.data + noise).astype(parameter.dtype))
    return model.eval()


def tiny_tokenizer(num_merges: int = 20) -> BPETokenizer:
    return BPETokenizer.train(TEXT, num_merges=num_merges, progress=False)


def tiny_generator(padding: int = 3, **options: Any) -> Generator:
    """A generator whose model has some more rows than the tokenizer has tokens."""
    tokenizer = tiny_tokenizer()
    return Generator(tiny_model(tokenizer.vocab_size + padding, **options), tokenizer)
