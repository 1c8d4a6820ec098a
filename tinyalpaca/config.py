"""What a model is and how it is trained: two dataclasses.

Every field has a help text, so a setting is written down once: here. `tinyalpaca.settings` makes
flags of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal

from tinyalpaca.settings import (
    ConfigError,
    check_choices,
    explained,
    from_dict,
    setting,
)

__all__ = ["ConfigError", "ModelConfig", "TrainConfig", "from_dict"]

MOST_WORKERS = 1024  # processes; more than the cores of any machine that these models are for


@explained
@dataclass(frozen=True)
class ModelConfig:
    """The sizes and options of a `TinyAlpaca`. The defaults are the original's.

    Raises:
        ConfigError: the sizes do not fit together.
    """

    vocab_size: int = setting(0, "number of tokens; 0 takes it from the tokenizer")
    d_model: int = setting(64, "width of the model: channels at each position")
    d_ff: int = setting(256, "width of the feed-forward network")
    num_heads: int = setting(4, "attention heads; must divide d_model unless head_size is given")
    num_kv_heads: int = setting(
        0, "heads of keys and values, each shared by num_heads / this of queries; 0: num_heads"
    )
    head_size: int = setting(0, "width of a head; 0: d_model / num_heads")
    num_layers: int = setting(4, "decoder layers")
    max_seq_len: int = setting(128, "longest sequence, in tokens")
    dropout: float = setting(0.0, "probability with which activations are dropped in training")
    pre_norm: bool = setting(False, "normalise before each block instead of after it")
    norm: Literal["layer", "rms"] = setting("layer", "kind of normalisation")
    norm_eps: float = setting(1e-5, "added to the variance or mean square in a norm")
    activation: Literal["relu", "gelu", "gelu_tanh", "silu", "swiglu"] = setting(
        "relu", "activation of the feed-forward network; swiglu has a gate, twice as wide a layer"
    )
    tie_weights: bool = setting(False, "use the token embedding as the final layer's weight")
    positions: Literal["learned", "rotary"] = setting("learned", "kind of position embeddings")
    rope_base: float = setting(10000.0, "slowest wavelength of rotary positions, over 2π")
    rope_scaling: Literal["none", "linear", "llama3"] = setting(
        "none", "how rotary positions are slowed down for a longer context than was trained"
    )
    rope_factor: float = setting(1.0, "how much slower scaled rotary positions turn")
    rope_low_freq: float = setting(
        1.0, "llama3: pairs with fewer turns than this in rope_context are slowed down fully"
    )
    rope_high_freq: float = setting(
        4.0, "llama3: pairs with more turns than this in rope_context are not slowed down"
    )
    rope_context: int = setting(8192, "llama3: the context that was trained first")
    bias: bool = setting(True, "biases in linear layers and norms")
    qkv_bias: bool = setting(False, "biases of queries, keys and values, even without bias")

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.num_kv_heads or self.num_heads

    @property
    def size_of_head(self) -> int:
        """D."""
        return self.head_size or self.d_model // self.num_heads

    def __post_init__(self) -> None:
        for name in ("d_model", "d_ff", "num_heads", "num_layers", "max_seq_len", "rope_context"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, it is {getattr(self, name)}")
        for name in ("vocab_size", "num_kv_heads", "head_size"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must not be negative, it is {getattr(self, name)}")
        if not self.head_size and self.d_model % self.num_heads:
            raise ConfigError(
                f"d_model ({self.d_model}) must be divisible by num_heads ({self.num_heads}): each "
                "head gets an equal share of the channels, unless head_size says how many it has"
            )
        if self.num_heads % self.kv_heads:
            raise ConfigError(
                f"num_heads ({self.num_heads}) must be divisible by num_kv_heads "
                f"({self.num_kv_heads}): each head of keys and values serves as many of queries"
            )
        if self.positions == "rotary" and self.size_of_head % 2:
            share = "head_size" if self.head_size else "d_model / num_heads"
            raise ConfigError(
                f"rotary positions turn pairs of channels: {share} must be even, it is "
                f"{self.size_of_head}"
            )
        for name in ("norm_eps", "rope_base", "rope_factor", "rope_low_freq", "rope_high_freq"):
            if not 0 < getattr(self, name) < inf:
                raise ConfigError(f"{name} must be positive, it is {getattr(self, name)}")
        if self.rope_low_freq >= self.rope_high_freq:
            raise ConfigError(
                f"rope_low_freq ({self.rope_low_freq}) must be less than rope_high_freq "
                f"({self.rope_high_freq})"
            )
        if self.rope_factor != 1 and self.rope_scaling == "none":
            raise ConfigError(f"rope_factor is {self.rope_factor}, but rope_scaling is 'none'")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must be in [0, 1), it is {self.dropout}")
        check_choices(self)


@explained
@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained, in groups of settings. The defaults are the original's setting.

    The groups are parts of `--help` and tables of a TOML file (`[training.optimizer]`). Here, as
    among the flags and in `config.json`, settings have no prefix: each name is there once, and two
    groups have the name of a setting, `data` and `optimizer`.

    Raises:
        ConfigError: a setting is out of range.
    """

    data: str = setting(
        "tinyshakespeare",
        "text to learn: a name, a file, a folder, - (stdin), or a file of tokens",
        group="data",
    )
    validation: str = setting("", "text for validation, instead of a share of --data")
    validation_fraction: float = setting(0.1, "share of the characters, at the end, for validation")
    tokenizer: str = setting(
        "bpe",
        "bpe (byte pairs), char (a token a character), or a tokenizer: a file, or its folder",
    )
    num_merges: int = setting(256, "merges that the tokenizer learns from the training part")
    batch_size: int = setting(32, "sequences a batch")
    accumulate: int = setting(1, "batches whose gradients make a step")
    seq_len: int = setting(128, "tokens of a training window; all but the first are predicted")
    windows: Literal["consecutive", "shifted", "random"] = setting(
        "consecutive",
        "split the text into windows once, or at other positions each epoch, or draw random ones",
    )
    init_from: str = setting(
        "",
        "start from the weights, sizes and tokenizer in this folder, of a run or converted",
        group="start",
    )
    freeze: str = setting(
        "", "do not train parameters whose names match, as in 'embedding.*,*.bias'"
    )
    lora_rank: int = setting(
        0,
        "train only adapters of this rank (LoRA), with the weights of --init-from; 0: no adapters",
    )
    lora_alpha: float = setting(16.0, "how strong adapters are: their scale is this over the rank")
    lora_layers: str = setting(
        "*.qkv_proj,*.out_proj", "linear layers that get an adapter, by patterns of their names"
    )
    seed: int = setting(0, "of the initial weights, the order of windows, dropout and samples")
    epochs: int = setting(10, "passes over the training data", group="length")
    max_steps: int = setting(0, "stop after this many steps; 0 for no limit")
    max_minutes: float = setting(0.0, "stop and save after so long; 0 for no limit")
    patience: int = setting(0, "stop after so many validations without an improvement; 0: never")
    optimizer: Literal["adamw", "muon"] = setting(
        "adamw",
        "muon makes the updates of the layers' matrices orthogonal; AdamW does the rest",
        group="optimizer",
    )
    learning_rate: float = setting(3e-4, "peak learning rate of AdamW")
    muon_learning_rate: float = setting(1e-2, "peak learning rate of Muon")
    min_learning_rate: float = setting(0.0, "learning rate at the end of a schedule")
    schedule: Literal["constant", "linear", "cosine", "cosine-restarts"] = setting(
        "constant", "learning rate over time; restarts happen at each epoch"
    )
    warmup_steps: int = setting(0, "steps over which the learning rate grows to its peak")
    cooldown: float = setting(
        1.0, "with schedule linear: the share of the steps after the warm-up in which it falls"
    )
    weight_decay: float = setting(0.01, "decay of weights")
    decay: Literal["all", "matrices"] = setting(
        "all", "what decays: all parameters, or all but biases and norms"
    )
    beta1: float = setting(0.9, "AdamW's average of gradients")
    beta2: float = setting(0.999, "AdamW's average of squared gradients")
    grad_clip: float = setting(1.0, "largest norm of all gradients; 0 for no limit")
    label_smoothing: float = setting(0.0, "share of the target spread over all tokens")
    ema: float = setting(
        0.0, "decay of an average of the weights, used to validate and save; 0: none"
    )
    skip_bad_steps: bool = setting(
        False, "skip steps whose loss is not finite, instead of stopping"
    )
    device: Literal["cpu", "gpu", "auto"] = setting(
        "cpu", "where to compute; auto uses a GPU if there is one", group="hardware"
    )
    precision: Literal["auto", "fp32", "tf32", "bf16"] = setting(
        "auto", "of matmuls on a GPU; auto: tf32 if the GPU has it"
    )
    graph: bool = setting(True, "on a GPU, capture a whole step as one CUDA graph")
    distributed: bool = setting(
        False, "share each batch among the processes that mpirun has started; see the guide"
    )
    shard_optimizer: bool = setting(
        False, "with --distributed: each process keeps only its share of the averages (ZeRO-1)"
    )
    rank_timeout: float = setting(
        300.0,
        "with --distributed: seconds after which a process that does not answer is given up; more "
        "than the first needs to save and to write a sample",
    )
    gradient_wire: Literal["host", "device", "nccl"] = setting(
        "host", "with --distributed: how gradients leave a GPU; device needs an MPI that knows CUDA"
    )
    workers: int = setting(0, "CPU processes that share a batch; 0 for one a core")
    micro_batch_size: int = setting(0, "sequences that a worker computes at a time; 0: by a rule")
    measure_micro_batch: bool = setting(
        False,
        "choose that number by timing, so that it and the last digits may differ between runs",
    )
    preflight: bool = setting(True, "check model, gradients and memory before training")
    out: str = setting(
        "runs/shakespeare", "folder for everything that the run writes", group="logging"
    )
    save_every: int = setting(0, "save a checkpoint every so many steps too; 0: at epochs only")
    save_minutes: float = setting(10.0, "save a checkpoint at least so often; 0: at epochs only")
    keep: int = setting(2, "newest checkpoints to keep, besides the best")
    log_every: int = setting(10, "steps between two records in metrics.jsonl")
    eval_every: int = setting(0, "validate every so many steps too; 0: after each epoch only")
    eval_stride: int = setting(
        0, "distance in tokens of the windows of the last validation; 0: they do not overlap"
    )
    tensorboard: bool = setting(False, "write TensorBoard's event files too")
    prompt: str = setting("To be or not to be, that is the question:", "how samples begin")
    sample_tokens: int = setting(200, "tokens of the sample at the end; 0 for none")
    epoch_sample_tokens: int = setting(60, "tokens of the sample after each epoch; 0 for none")
    quiet: bool = setting(False, "print nothing but warnings and the result")

    def __post_init__(self) -> None:
        for name in ("data", "out"):  # "" would be the present folder, and all texts in it
            if not str(getattr(self, name)).strip():
                raise ConfigError(f"{name} is empty: give a name, or . for the present folder")
        for name in ("epochs", "batch_size", "accumulate", "keep", "log_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, it is {getattr(self, name)}")
        for name in (
            "max_steps",
            "num_merges",
            "warmup_steps",
            "workers",
            "micro_batch_size",
            "sample_tokens",
            "epoch_sample_tokens",
            "patience",
            "lora_rank",
            "max_minutes",
            "save_every",
            "save_minutes",
            "eval_every",
            "eval_stride",
            "weight_decay",
            "grad_clip",
            "min_learning_rate",
            "seed",
        ):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} must not be negative, it is {getattr(self, name)}")
        for name in ("weight_decay", "min_learning_rate"):
            if getattr(self, name) == inf:
                raise ConfigError(f"{name} must be finite, it is inf")
        if self.workers > MOST_WORKERS:
            raise ConfigError(f"workers must be at most {MOST_WORKERS}, it is {self.workers}")
        if self.seq_len < 2:
            raise ConfigError(
                f"seq_len must be at least 2 (a token and the next), not {self.seq_len}"
            )
        if self.lora_rank and not self.init_from:
            raise ConfigError(
                "adapters are added to a model that there is: give --init-from with --lora-rank"
            )
        if self.lora_rank and self.freeze:
            raise ConfigError("with --lora-rank adapters alone are trained: leave --freeze out")
        for name in ("learning_rate", "muon_learning_rate", "lora_alpha", "rank_timeout"):
            if not 0 < getattr(self, name) < inf:
                raise ConfigError(f"{name} must be positive, it is {getattr(self, name)}")
        if not 0 < self.cooldown <= 1:
            raise ConfigError(f"cooldown must be in (0, 1], it is {self.cooldown}")
        for name in ("beta1", "beta2", "label_smoothing", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} must be in [0, 1), it is {getattr(self, name)}")
        if not 0 < self.validation_fraction < 1:
            raise ConfigError(
                f"validation_fraction must be between 0 and 1, it is {self.validation_fraction}"
            )
        check_choices(self)
