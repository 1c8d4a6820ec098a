"""Reads models of the Llama family from Hugging Face: Llama, Mistral, Qwen2 and similar ones.

All of them are a `TinyAlpaca` with pre-norm, RMSNorm, SwiGLU and rotary positions. Only Qwen2 has
biases, those of queries, keys and values. Hugging Face stores the projections of queries, keys and
values as three matrices, and gate and value of the feed-forward network as two. Our model stacks
each group in one matrix.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.storage import FileFormatError
from tinyalpaca.config import ConfigError, ModelConfig, from_dict
from tinyalpaca.converting.their_tensors import TheirTensors

# The defaults of Hugging Face's classes for settings that a configuration leaves out.
DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": None, "max_position_embeddings": 2048},
    "mistral": {
        **{"num_key_value_heads": 8, "max_position_embeddings": 131072},
        "sliding_window": 4096,
    },
    "qwen2": {"num_key_value_heads": 32, "max_position_embeddings": 32768},
}
# Settings that change what is computed, with the values that our model supports.
EXPECTED: dict[str, Any] = {
    "hidden_act": ("silu", "swish"),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "use_sliding_window": (False,),
    "partial_rotary_factor": (1.0, None),
    "quantization_config": (None,),
}
# Hugging Face's settings of scaled rotary positions -> ours.
SCALING = {
    "factor": "rope_factor",
    "low_freq_factor": "rope_low_freq",
    "high_freq_factor": "rope_high_freq",
    "original_max_position_embeddings": "rope_context",
}
USED: dict[str, tuple[str, ...]] = {"default": (), "linear": ("factor",), "llama3": tuple(SCALING)}
# Our names in a layer -> Llama's names of the matrices that ours stacks.
LAYER: dict[str, Any] = {
    "multi_head_attention.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "multi_head_attention.out_proj": ("self_attn.o_proj",),
    "ffn.fc1": ("mlp.gate_proj", "mlp.up_proj"),
    "ffn.fc2": ("mlp.down_proj",),
    "layer_norm1": ("input_layernorm",),
    "layer_norm2": ("post_attention_layernorm",),
}
BUFFER = re.compile(r"layers\.\d+\.self_attn\.rotary_emb\.inv_freq")  # saved by older versions


def llama_config(path: Path, theirs: Mapping[str, Any]) -> ModelConfig:
    """Our configuration of a model of the Llama family.

    Args:
        path: the path of its config.json, for messages.
        theirs: the content of that file.

    Raises:
        FileFormatError: our model cannot compute such a model; names the setting.
    """
    kind = theirs["model_type"]
    theirs = {**DEFAULTS[kind], **theirs}
    for name, values in EXPECTED.items():
        if theirs.get(name, values[0]) not in values:
            raise FileFormatError(
                path, f"{name} is {theirs[name]!r}; only {values[0]!r} is supported"
            )
    _check_windows(path, theirs)
    architectures = theirs.get("architectures") or []
    if architectures and not any(str(name).endswith("ForCausalLM") for name in architectures):
        raise FileFormatError(
            path, f"architectures is {architectures!r}; only models ForCausalLM are supported"
        )
    try:
        heads, width = theirs["num_attention_heads"], theirs["hidden_size"]
        ours = {
            "vocab_size": theirs["vocab_size"],
            "d_model": width,
            "d_ff": theirs["intermediate_size"],
            "num_heads": heads,
            "num_kv_heads": theirs["num_key_value_heads"] or heads,
            "head_size": theirs.get("head_dim") or width // heads,
            "num_layers": theirs["num_hidden_layers"],
            "max_seq_len": theirs["max_position_embeddings"],
            "pre_norm": True,
            "norm": "rms",
            "norm_eps": theirs.get("rms_norm_eps", 1e-6),
            "activation": "swiglu",
            "tie_weights": theirs.get("tie_word_embeddings", False),
            "positions": "rotary",
            "bias": False,
            "qkv_bias": kind == "qwen2",
            **_rotation(path, theirs),
        }
        config: ModelConfig = from_dict(ModelConfig, ours)
        return config
    except FileFormatError:
        raise
    except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        problem = str(error) if isinstance(error, ConfigError) else repr(error)
        raise FileFormatError(path, f"not a configuration of a {kind} ({problem})") from error


def _check_windows(path: Path, theirs: Mapping[str, Any]) -> None:
    """Raise `FileFormatError` if a position does not attend to all earlier positions."""
    kinds = theirs.get("layer_types")
    if kinds and any(kind != "full_attention" for kind in kinds):
        raise FileFormatError(path, f"layer_types is {kinds!r}; only 'full_attention' is supported")
    window, context = theirs.get("sliding_window"), theirs["max_position_embeddings"]
    # Qwen2's files also name a window if use_sliding_window = false turns it off.
    if theirs["model_type"] == "mistral" and window is not None and window < context:
        raise FileFormatError(
            path,
            f"sliding_window is {window}, less than max_position_embeddings ({context}): attention "
            f"within a window is not supported. With max_position_embeddings = {window} in "
            "config.json, a context in which the window hides nothing, the model can be loaded",
        )


def _rotation(path: Path, theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Our settings of rotary positions. Newer files have all of them in `rope_parameters`.

    Raises:
        FileFormatError: the kind of scaling is not supported, or one of its numbers is missing.
    """
    place = "rope_parameters" if theirs.get("rope_parameters") else "rope_scaling"
    given = theirs.get(place) or {}
    kind = given.get("rope_type", given.get("type", "default"))
    if kind not in USED:
        raise FileFormatError(
            path, f"{place}: rope_type is {kind!r}; only {', '.join(USED)} are supported"
        )
    if given.get("partial_rotary_factor", 1.0) != 1.0:
        raise FileFormatError(path, f"{place}: partial_rotary_factor is not supported")
    base = given.get("rope_theta", theirs.get("rope_theta", 10000.0))
    ours = {"rope_base": base, "rope_scaling": "none" if kind == "default" else kind}
    for name in USED[kind]:
        if name not in given:
            raise FileFormatError(path, f"{place}: {name} is missing, which {kind!r} needs")
        ours[SCALING[name]] = given[name]
    return ours


def translated(
    path: Path, tensors: Mapping[str, np.ndarray], config: ModelConfig
) -> dict[str, np.ndarray]:
    """Llama's tensors under our names.

    Raises:
        FileFormatError: one is missing, or there are others, which would change the results.
    """
    theirs = TheirTensors(path, tensors, "model.", "of the Llama family", "model's")
    take = theirs.take
    embedding = take("embed_tokens.weight")
    ours = {
        "embedding.token_embed": embedding,
        "final_norm.weight": take("norm.weight"),
        "final_linear.weight": embedding if config.tie_weights else take("lm_head.weight"),
    }
    for number in range(config.num_layers):
        for our_name, parts in LAYER.items():
            prefix = f"decoder_layers.{number}.{our_name}"
            ours[f"{prefix}.weight"] = _below(path, number, parts, "weight", take)
            if config.qkv_bias and our_name.endswith("qkv_proj"):
                ours[f"{prefix}.bias"] = _below(path, number, parts, "bias", take)
    theirs.check_rest(BUFFER, embedding if config.tie_weights else None)
    return ours


def _below(path: Path, layer: int, names: tuple[str, ...], kind: str, take: Any) -> np.ndarray:
    """One of our parameters, stacked from several of Llama's."""
    parts = [take(f"layers.{layer}.{name}.{kind}") for name in names]
    if len(parts) == 1:
        return parts[0]
    if len({part.shape[1:] for part in parts}) > 1:
        shapes = ", ".join(f"{n} {p.shape}" for n, p in zip(names, parts, strict=True))
        raise FileFormatError(path, f"layer {layer} has {kind}s that do not fit: {shapes}")
    if kind == "bias":
        return np.concatenate(parts)
    # It has to be copied anyway. The copy is stored as (C_in, C_out), because BLAS then takes half
    # the time for one token: it reads several parts of such a matrix at once.
    turned = np.empty((parts[0].shape[1], sum(map(len, parts))), parts[0].dtype)  # (C_in, C_out)
    np.concatenate([part.T for part in parts], axis=1, out=turned)
    return turned.T
