"""Reading Hugging Face's `tokenizer.json`.

The library `tokenizers` defines what its parts mean. Each is done here exactly as there, or the
file is refused with the reason. `truncation` and `padding` concern batches, and are ignored here;
the library `transformers` does the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tinyalpaca.tokenizer.added_tokens import AddedToken, AddedTokens
from tinyalpaca.tokenizer.bpe_parts import BPEParts
from tinyalpaca.tokenizer.foreign import Foreign, frame_of
from tinyalpaca.tokenizer.normalizers import normalizer_from_json
from tinyalpaca.tokenizer.pre_tokenizers import splitter_from_json
from tinyalpaca.tokenizer.pretokenize import PreSplitter, byte_alphabet

_FLAGS = ("single_word", "lstrip", "rstrip")
# Settings of the model that matter only for a byte that has no token.
_FOR_UNKNOWN_BYTES = ("unk_token", "byte_fallback", "fuse_unk")


def from_json(content: Mapping[str, Any], name: str) -> BPEParts:
    """The parts of a tokenizer from the content of a file.

    Raises:
        ValueError: it is damaged, or has something that is not supported exactly.
    """
    model = content.get("model")
    if not isinstance(model, dict) or not {"vocab", "merges"} <= model.keys():
        raise ValueError(
            f"{name} is not a BPE tokenizer file: it has no model with a vocabulary and merges"
        )
    if model.get("type", "BPE") != "BPE":
        raise ValueError(f"{name} holds a {model['type']} model; only BPE can be loaded")
    for setting in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(setting):
            raise ValueError(f"{name}: {setting} = {model[setting]!r} is not supported")
    lacking = [character for character in byte_alphabet() if character not in model["vocab"]]
    for setting in _FOR_UNKNOWN_BYTES:
        if model.get(setting) and lacking:
            raise ValueError(
                f"{name}: {setting} = {model[setting]!r} is not supported where bytes have no "
                f"token, as here {len(lacking)} have none"
            )
    try:
        normalizer = content.get("normalizer") or None
        tokens = added_tokens(content.get("added_tokens") or [], model["vocab"])
        AddedTokens(tokens, normalizer and normalizer_from_json(normalizer))
        splitter, add_prefix_space = splitter_from_json(content.get("pre_tokenizer"))
        frame_of(content.get("post_processor"))
        _check_decoder(content.get("decoder"))
    except ValueError as error:
        said = str(error)
        raise ValueError(
            f"{name} {said}" if said.startswith("is not") else f"{name}: {said}"
        ) from None
    foreign = Foreign(
        tuple(tokens),
        normalizer,
        bool(model.get("ignore_merges")),
        content.get("post_processor"),
    )
    return assemble(model["vocab"], model["merges"], foreign, splitter, add_prefix_space, name)


def _check_decoder(content: Mapping[str, Any] | None) -> None:
    kind = (content or {}).get("type")
    if kind == "Sequence":
        for part in (content or {})["decoders"]:
            _check_decoder(part)
    elif kind not in (None, "ByteLevel"):
        raise ValueError(f"its decoder {kind} changes text, which is not supported")


def added_tokens(
    entries: Sequence[Mapping[str, Any]], vocab: Mapping[str, int]
) -> list[AddedToken]:
    """Entries of `added_tokens` as tokens.

    The library numbers them itself, so a file with other numbers is refused.
    """
    tokens: dict[str, AddedToken] = {}
    largest = -1
    for entry in entries:
        content = entry["content"]
        expected = vocab.get(content, max(largest + 1, len(vocab)))
        if not content or entry["id"] != expected or content in tokens:
            raise ValueError(
                f"added token {content!r} has id {entry['id']}, where Hugging Face's "
                f"library would give it {expected if content else 'none'}: the file has been edited"
            )
        largest = max(largest, expected)
        flags = {flag: bool(entry.get(flag)) for flag in _FLAGS}
        special = bool(entry.get("special"))
        normalized = bool(entry.get("normalized", not special))
        tokens[content] = AddedToken(
            content,
            expected,
            **flags,
            normalized=normalized,
            special=special,
            in_vocabulary=content in vocab,
        )
    return list(tokens.values())


def assemble(
    vocab: Mapping[str, int],
    merges: Sequence[str | Sequence[str]],
    foreign: Foreign,
    splitter: PreSplitter,
    add_prefix_space: bool,
    name: str,
) -> BPEParts:
    """Check everything that encoding relies on, and translate text to bytes.

    Raises:
        ValueError: ids, tokens or merges are impossible.
    """
    added = {token.content: token.id for token in foreign.added_tokens}
    pairs, made = _pairs(vocab, merges, name)
    byte_of = {character: byte for byte, character in enumerate(byte_alphabet())}
    every = {**vocab, **added}
    tokens: dict[int, bytes] = {}
    for text, index in every.items():
        if not isinstance(index, int) or not 0 <= index < len(every) or index in tokens:
            raise ValueError(
                f"{name}: id {index!r} of token {text!r} is not one of 0 to {len(every) - 1}, each "
                "used once"
            )
        if text in added and text not in made:
            tokens[index] = text.encode("utf-8")
        elif all(character in byte_of for character in text):
            tokens[index] = bytes(byte_of[character] for character in text)
        else:
            raise ValueError(
                f"{name} is not a byte-level BPE: token {text!r} holds characters that stand for "
                "no byte"
            )
    vocabulary = [tokens[index] for index in range(len(tokens))]
    special = {token.content: token.id for token in foreign.added_tokens if token.special}
    return BPEParts(vocabulary, pairs, special, splitter, add_prefix_space, foreign)


def _pairs(
    vocab: Mapping[str, int], merges: Sequence[str | Sequence[str]], name: str
) -> tuple[list[tuple[int, int]], set[str]]:
    """The merges as pairs of ids, and all tokens that are bytes or made by merges."""
    alphabet = set(byte_alphabet())
    made = {text for text in vocab if text in alphabet}
    pairs = []
    for number, merge in enumerate(merges):
        parts = merge.split(" ") if isinstance(merge, str) else list(merge)
        if len(parts) != 2:
            raise ValueError(f"{name}: merge number {number}, {merge!r}, is not a pair of tokens")
        result = "".join(parts)
        for text in (*parts, result):
            if text not in vocab:
                raise ValueError(
                    f"{name}: merge number {number} ({parts[0]} + {parts[1]}) needs token "
                    f"{text!r}, which is not in the vocabulary"
                )
        for text in parts:
            if text not in made:
                raise ValueError(
                    f"{name}: merges are out of order: number {number} ({parts[0]} + {parts[1]}) "
                    f"uses {text!r} before any merge makes it"
                )
        made.add(result)
        pairs.append((vocab[parts[0]], vocab[parts[1]]))
    return pairs, made
