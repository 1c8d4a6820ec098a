"""Settings under a name (`--preset`). Flags given beside it take precedence."""

from __future__ import annotations

from typing import Any, NamedTuple


class Preset(NamedTuple):
    """What a preset changes in `ModelConfig` and `TrainConfig`, and what it is for."""

    help: str
    model: dict[str, Any]
    training: dict[str, Any]


NANOGPT = {"pre_norm": True, "activation": "gelu", "tie_weights": True, "bias": False}

PRESETS: dict[str, Preset] = {
    "seed": Preset("the original's setting, and the default", {}, {}),
    "best": Preset(
        "the most from the original's number of parameters and epochs",
        {"positions": "rotary", "tie_weights": True, "activation": "gelu_tanh"},
        {
            "num_merges": 256,
            "batch_size": 8,
            "windows": "random",
            "optimizer": "muon",
            "learning_rate": 1e-2,
            "muon_learning_rate": 1e-2,
            "schedule": "linear",
            "warmup_steps": 100,
            "weight_decay": 0.05,
            "decay": "matrices",
            "beta2": 0.99,
            "eval_stride": 32,
        },
    ),
    "small-cpu": Preset(
        "0.8 M parameters on characters: nanoGPT's setting for a CPU",
        {**NANOGPT, "d_model": 128, "d_ff": 512, "max_seq_len": 64},
        {
            "tokenizer": "char",
            "batch_size": 12,
            "seq_len": 65,
            "windows": "random",
            "epochs": 2,
            "max_steps": 2000,
            "learning_rate": 1e-3,
            "min_learning_rate": 1e-4,
            "schedule": "cosine",
            "warmup_steps": 100,
            "weight_decay": 0.1,
            "decay": "matrices",
            "beta2": 0.99,
            "eval_stride": 16,
        },
    ),
    "baby-gpt": Preset(
        "10.8 M parameters on characters: nanoGPT's setting for a GPU",
        {
            **NANOGPT,
            "d_model": 384,
            "d_ff": 1536,
            "num_heads": 6,
            "num_layers": 6,
            "max_seq_len": 256,
            "dropout": 0.2,
        },
        {
            "tokenizer": "char",
            "batch_size": 64,
            "seq_len": 257,
            "windows": "random",
            "epochs": 83,
            "max_steps": 5000,
            "learning_rate": 1e-3,
            "min_learning_rate": 1e-4,
            "schedule": "cosine",
            "warmup_steps": 100,
            "weight_decay": 0.1,
            "decay": "matrices",
            "beta2": 0.99,
            "epoch_sample_tokens": 0,
        },
    ),
}
