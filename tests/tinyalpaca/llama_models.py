"""Small models of the Llama family with random weights, made and saved by `transformers`."""

from pathlib import Path
from typing import Any

from tests.tinyalpaca.tiny_models import TEXT

# For each kind: the class of its configuration, and settings besides `SIZES`.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": (  # like Llama 3.1: scaled positions, shared keys and values; also wider heads
        "Llama",
        {
            **{"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8},
            "rope_parameters": {
                **{"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0},
                **{"low_freq_factor": 1.0, "high_freq_factor": 4.0},
                "original_max_position_embeddings": 16,
            },
        },
    ),
    "llama with linear scaling": (  # like Llama 2: as many heads of keys and values as of queries
        "Llama",
        {
            **{"num_attention_heads": 3, "num_key_value_heads": 3, "rms_norm_eps": 1e-2},
            "rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 3.0},
        },
    ),
    "mistral": (
        "Mistral",
        {"num_attention_heads": 6, "num_key_value_heads": 2, "sliding_window": None},
    ),
    "qwen2": (
        "Qwen2",
        {
            **{"num_attention_heads": 4, "num_key_value_heads": 1, "tie_word_embeddings": True},
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        },
    ),
    "smollm": (
        "Llama",
        {
            **{"num_attention_heads": 6, "num_key_value_heads": 3, "tie_word_embeddings": True},
            "rms_norm_eps": 1e-5,
        },
    ),
}
SIZES = {
    **{"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2},
    "max_position_embeddings": 40,
}
# How the families split a text into words.
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def tokenizer_of(transformers: Any, kind: str = "llama") -> Any:
    """A byte-level BPE like that of a family, trained by the library `tokenizers`."""
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

    library = tokenizers.Tokenizer(models.BPE(ignore_merges=kind == "llama"))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind == "smollm")
    if kind == "smollm":
        steps = [pre_tokenizers.Digits(individual_digits=True), byte_level]
    else:
        pattern = tokenizers.Regex(QWEN2 if kind == "qwen2" else LLAMA3)
        steps = [pre_tokenizers.Split(pattern, "isolated"), byte_level]
    library.pre_tokenizer = pre_tokenizers.Sequence(steps)
    library.decoder = decoders.ByteLevel()
    if kind == "qwen2":
        library.normalizer = normalizers.NFC()
    special = {
        "llama": ["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"],
        "qwen2": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        "mistral": ["<s>", "</s>", "[INST]", "[/INST]"],
        "smollm": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    }[kind]
    trainer = trainers.BpeTrainer(
        vocab_size=256 + 24,
        special_tokens=special if kind in ("mistral", "smollm") else [],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    library.train_from_iterator([TEXT * 3 + " 1234 5 67 'll 're\n\n  x"], trainer)
    library.add_special_tokens(special)
    if kind == "llama":
        begin = special[0]
        template = processors.TemplateProcessing(
            single=f"{begin} $A", special_tokens=[(begin, library.token_to_id(begin))]
        )
        library.post_processor = processors.Sequence(
            [processors.ByteLevel(trim_offsets=False), template]
        )
    end = {"llama": special[1], "mistral": special[1]}.get(kind, special[-1])
    first = special[0] if kind in ("llama", "mistral") else None
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=library, bos_token=first, eos_token=end
    )


def save_tiny_llama(transformers: Any, kind: str, folder: Path, **saving: Any) -> tuple[Any, Any]:
    """Write a model of `MODELS` and its tokenizer to a folder; returns both.

    Args:
        saving: arguments of `save_pretrained`.
    """
    import torch

    family, settings = MODELS[kind]
    tokenizer = tokenizer_of(transformers, kind.split()[0])
    config = getattr(transformers, f"{family}Config")(
        vocab_size=len(tokenizer) + 3,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **{**SIZES, **settings},
    )
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms start at 0 and 1
            parameter += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(folder, **saving)
    tokenizer.save_pretrained(folder)
    return model, tokenizer
