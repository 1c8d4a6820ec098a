"""Settings under a name (`--preset`). Flags given beside it take precedence.

How `best` came about. Each row is one run on Tiny Shakespeare, scored in nats per character on the
last 10% of its characters: with windows that do not overlap, and with windows that move on by 32
tokens. All have 213,000 to 241,000 parameters, rotary positions, a tied head, 256 merges, windows
of 128 tokens at random places, and a learning rate that falls to 0 within the run. Rows of one
epoch and of two are comparable among themselves only.

    one epoch, batch 16, cosine, weight decay 0.1, ReLU, post-norm unless said      apart  sliding
    AdamW 3e-3                                                                     1.932    1.926
    Muon 1e-2 for the layers' matrices, AdamW 3e-3 for the rest                    1.825    1.818
    Muon 1e-2, pre-norm, RMSNorm, no biases                                        1.871    1.868
    Muon 2e-2, AdamW 5e-3, pre-norm, RMSNorm, no biases                            1.804    1.797
    Muon 2e-2, AdamW 3e-3                                                          1.795    1.786
    Muon 1.5e-2, AdamW 5e-3, GELU, RMSNorm, no biases                              1.782    1.774
    Muon 1.5e-2, AdamW 5e-3, five layers of d_ff 192                               1.766    1.757
    Muon 2e-2, AdamW 1e-2, embeddings decay too                                    1.727    1.717
    Muon 1.5e-2, AdamW 5e-3, batch 8                                               1.697    1.686

    two epochs, batch 8, AdamW 1e-2 for embeddings and vectors                      apart  sliding
    Muon 3e-2                                                                      1.636    1.623
    Muon 2e-2, batch 4                                                             1.618    1.608
    Muon 2e-2                                                                      1.613    1.602
    Muon 2e-2, GELU, five layers of d_ff 192                                       1.611    1.600
    Muon 2e-2, linear schedule, weight decay 0.05                                  1.605    1.592
    Muon 2e-2, GELU                                                                1.596    1.585
    Muon 1.5e-2, GELU, average of the weights over 100 steps                       1.578    1.567
    Muon 1.5e-2, GELU                                                              1.576    1.564
    Muon 1e-2, GELU, linear schedule, weight decay 0.05                            1.562    1.549

    ten epochs: the preset                                                         1.482    1.468

What helped most: orthogonal updates (Muon), many small batches, and a high rate for the embeddings.
Pre-norm and more, narrower layers did not help at this size; neither did averaging the weights once
the rate falls to 0 anyway.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Preset(NamedTuple):
    """What a preset changes in `ModelConfig` and `TrainConfig`, and what it is for."""

    help: str
    model: dict[str, Any]
    training: dict[str, Any]


DEFAULT = "original"
FORMER_NAMES = {"seed": "original"}


def preset_named(name: str) -> str:
    """The name that a preset has now; what never was one comes back as it is."""
    return FORMER_NAMES.get(name, name)


NANOGPT = {"pre_norm": True, "activation": "gelu", "tie_weights": True, "bias": False}

PRESETS: dict[str, Preset] = {
    "original": Preset("the setting of the original, TinyAlpaca in PyTorch; the default", {}, {}),
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
        {**NANOGPT, "d_model": 128, "d_ff": 512, "max_seq_len": 64, "positions": "rotary"},
        {
            "tokenizer": "char",
            "batch_size": 12,
            "seq_len": 65,
            "windows": "random",
            "epochs": 2,
            "max_steps": 2000,
            "optimizer": "muon",
            "learning_rate": 3e-3,
            "muon_learning_rate": 1e-2,
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
