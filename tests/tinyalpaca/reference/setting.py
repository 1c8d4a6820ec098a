"""Tokens, initial weights and settings of each case, which both programs use.

Nothing here is from `minigrad` or `tinyalpaca`. Settings have the names of `ModelConfig` and
`TrainConfig`.
"""

from pathlib import Path

import numpy as np

LOSSES = Path(__file__).with_name("losses.json")

MODEL = {
    "vocab_size": 11,
    "d_model": 16,
    "d_ff": 32,
    "num_heads": 2,
    "num_layers": 2,
    "max_seq_len": 8,
    "dropout": 0.0,
}
TRAINING = {
    "epochs": 2,
    "batch_size": 6,
    "accumulate": 1,
    "seq_len": 9,
    "windows": "consecutive",
    "optimizer": "adamw",
    "learning_rate": 1e-2,
    "muon_learning_rate": 2e-2,
    "min_learning_rate": 0.0,
    "schedule": "constant",
    "warmup_steps": 0,
    "cooldown": 1.0,
    "weight_decay": 0.01,
    "decay": "all",
    "beta1": 0.9,
    "beta2": 0.999,
    "grad_clip": 1.0,
    "label_smoothing": 0.0,
    "ema": 0.0,
    "seed": 3,
    "micro_batch_size": 2,
}
# The changes of each case to MODEL and TRAINING. All have five steps per epoch, ten in total.
CASES = {
    "betas": ({}, {"beta1": 0.6, "beta2": 0.9}),
    "clipping": ({}, {"grad_clip": 0.25, "weight_decay": 0.0}),
    "no clipping": ({}, {"grad_clip": 0.0, "learning_rate": 3e-2}),
    "decay of everything": ({}, {"weight_decay": 4.0}),
    "decay of matrices": ({}, {"weight_decay": 4.0, "decay": "matrices"}),
    "dropout": ({"dropout": 0.3}, {"seed": 5}),
    "accumulated dropout": ({"dropout": 0.3}, {"batch_size": 2, "accumulate": 3}),
    "accumulation, odd micro-batches": (
        {"dropout": 0.2},
        {"batch_size": 3, "accumulate": 2, "micro_batch_size": 2},
    ),
    "average of weights": ({}, {"ema": 0.9}),
    "average, accumulated": ({"dropout": 0.1}, {"ema": 0.5, "batch_size": 2, "accumulate": 3}),
    "label smoothing": ({}, {"label_smoothing": 0.2}),
    "constant after warm-up": ({}, {"warmup_steps": 6}),
    "cosine": ({}, {"schedule": "cosine", "warmup_steps": 3, "min_learning_rate": 2e-3}),
    "linear": ({}, {"schedule": "linear", "warmup_steps": 3, "min_learning_rate": 1e-3}),
    "restarts": ({}, {"schedule": "cosine-restarts", "min_learning_rate": 5e-4}),
    "random windows": ({}, {"windows": "random", "seed": 9}),
    "shifted windows": ({}, {"windows": "shifted", "batch_size": 7, "seed": 4}),
    "cooldown": ({}, {"schedule": "linear", "warmup_steps": 2, "cooldown": 0.4}),
    "muon": ({}, {"optimizer": "muon", "decay": "matrices", "weight_decay": 0.5}),
    "muon after warm-up": ({}, {"optimizer": "muon", "warmup_steps": 4}),
    "muon, linear": (
        {"dropout": 0.1},
        {"optimizer": "muon", "schedule": "linear", "warmup_steps": 2, "beta2": 0.95},
    ),
}


def tokens() -> tuple[np.ndarray, np.ndarray]:
    """Tokens for training and validation: most are three times the previous one, plus 1."""
    rng = np.random.default_rng(1)
    ids = [1]
    for jump in rng.integers(0, 40, 340):
        ids.append(int((3 * ids[-1] + 1 if jump > 10 else jump) % 11))
    return np.array(ids[:275]), np.array(ids[275:])


def weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Initial weights by name, which do not depend on the order of the shapes."""
    result = {}
    for name in sorted(shapes):
        rng = np.random.default_rng([ord(letter) for letter in name])
        drawn = rng.uniform(-1, 1, shapes[name]) * (0.4 if len(shapes[name]) > 1 else 0.1)
        result[name] = drawn + 1 if "norm" in name and name.endswith("weight") else drawn
    return result
