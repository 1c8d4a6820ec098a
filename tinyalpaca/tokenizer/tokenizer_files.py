"""Tokenizer files: Hugging Face's `tokenizer.json` both ways, GPT-2's two files, `.vocab`.

Hugging Face's `tokenizers` writes a byte-level token as text, one printable character a byte
(`byte_alphabet`), a merge as the pair of such texts, and the pre-splitter by name or as a pattern.
Files with something that is not supported exactly are refused.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minigrad.storage import write_text_atomically
from tinyalpaca.text_files import decode_utf8
from tinyalpaca.tokenizer import char_tokenizer, huggingface_file
from tinyalpaca.tokenizer.added_tokens import AddedToken
from tinyalpaca.tokenizer.bpe_parts import BPEParts
from tinyalpaca.tokenizer.foreign import Foreign
from tinyalpaca.tokenizer.original_vocab import OriginalTokenizer
from tinyalpaca.tokenizer.pre_tokenizers import ChainSplitter
from tinyalpaca.tokenizer.pretokenize import PreSplitter, byte_alphabet
from tinyalpaca.tokenizer.tokenizer_base import (
    END_OF_TEXT,
    FILE_NAME,
    Tokenizer,
    file_to_write,
)


def save(parts: BPEParts, path: str | os.PathLike[str]) -> Path:
    """Write `tokenizer.json` (or the name given) and the `.vocab` beside it; return its path."""
    path = file_to_write(path)
    content = json.dumps(to_json(parts), ensure_ascii=False, indent=1)
    write_text_atomically(path, content + "\n", make_folders=True)
    readable = path.with_suffix(".vocab")
    if readable != path:
        text = readable_vocabulary(parts)
        write_text_atomically(readable, text, follow_links=False)  # a name of ours
    return path


def to_json(parts: BPEParts) -> dict[str, Any]:
    """The content of a `tokenizer.json`."""
    alphabet = byte_alphabet()
    names = ["".join(alphabet[byte] for byte in token) for token in parts.vocabulary]
    foreign = parts.foreign
    for token in foreign.added_tokens:
        names[token.id] = token.content
    outside = {token.id for token in foreign.added_tokens if not token.in_vocabulary}
    vocabulary = {name: index for index, name in enumerate(names) if index not in outside}
    byte_level = {"type": "ByteLevel", "trim_offsets": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added_token_to_json(token) for token in foreign.added_tokens],
        "normalizer": foreign.normalizer,
        "pre_tokenizer": _splitter_to_json(parts),
        "post_processor": foreign.post_processor,
        "decoder": {**byte_level, "add_prefix_space": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": foreign.ignore_merges,
            "vocab": vocabulary,
            "merges": [[names[left], names[right]] for left, right in parts.merges],
        },
    }


def added_token_to_json(token: AddedToken) -> dict[str, Any]:
    """An entry of `added_tokens`."""
    names = ("id", "content", "single_word", "lstrip", "rstrip", "normalized", "special")
    return {name: getattr(token, name) for name in names}


def _splitter_to_json(parts: BPEParts) -> Mapping[str, Any]:
    if isinstance(parts.splitter, ChainSplitter):
        return parts.splitter.content
    name = parts.splitter.name
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": parts.add_prefix_space,
        "trim_offsets": True,
        "use_regex": name == "gpt2",
    }
    if name in ("gpt2", "none"):
        return byte_level
    split = {
        "type": "Split",
        "pattern": {"Regex": parts.splitter.pattern},
        "behavior": "Isolated",
        "invert": False,
    }
    return {"type": "Sequence", "pretokenizers": [split, byte_level]}


def readable_vocabulary(parts: BPEParts) -> str:
    """A line for each token: its id, its text, and the two tokens that were merged into it."""
    merged: dict[bytes, tuple[int, int]] = {}
    for pair in parts.merges:
        merged.setdefault(parts.vocabulary[pair[0]] + parts.vocabulary[pair[1]], pair)
    added = {token.id: token for token in parts.foreign.added_tokens}
    lines = []
    for index, token in enumerate(parts.vocabulary):
        line = f"{index:>6}  {readable_token(token)}"
        if index in added:
            line += "  special token" if added[index].special else "  added token"
        elif token in merged and len(token) > 1:
            halves = (f"{readable_token(parts.vocabulary[i])} ({i})" for i in merged[token])
            line += "  = " + " + ".join(halves)
        lines.append(line + "\n")
    return "".join(lines)


def readable_token(token: bytes) -> str:
    """A token in quotes: as text where it is text, with escapes where it is not."""
    try:
        return json.dumps(
            token.decode("utf-8"), ensure_ascii=not token.decode("utf-8").isprintable()
        )
    except UnicodeDecodeError:
        return '"' + "".join(f"\\x{byte:02x}" for byte in token) + '"'


def read_any(path: str | os.PathLike[str]) -> BPEParts | Tokenizer:
    """What the file (or the folder with one) holds: a tokenizer, or the parts of a `BPETokenizer`.

    Raises:
        ValueError: it is damaged, or not supported; says why.
    """
    path = _file_in(Path(path))
    try:
        return _read_file(path)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} does not have the form of a tokenizer file ({error!r})") from None


def _read_file(path: Path) -> BPEParts | Tokenizer:
    if path.name in ("vocab.json", "merges.txt") and path.with_name("merges.txt").exists():
        whole = path.with_name(FILE_NAME)  # it knows of tokens that were added later
        return _read_file(whole) if whole.is_file() else _read_two_files(path)
    content = _read_json(path)
    if content.get("format") == char_tokenizer.FORMAT:
        return char_tokenizer.CharTokenizer.from_json(content, str(path))
    if content and all(key.isdecimal() for key in content):
        return OriginalTokenizer.from_json(content, str(path))
    return huggingface_file.from_json(content, str(path))


def _file_in(path: Path) -> Path:
    if not path.is_dir():
        return path
    for name in (FILE_NAME, "vocab.json"):
        if (path / name).exists():
            if not (path / name).is_file():
                raise ValueError(f"{path / name} is no ordinary file")
            return path / name
    raise FileNotFoundError(f"{path} has neither {FILE_NAME} nor vocab.json with merges.txt")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(decode_utf8(path.read_bytes(), str(path)).removeprefix("\ufeff"))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(
            f"{path} is not complete JSON ({error}): it was cut short, or is another kind of file"
        ) from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a tokenizer file: it holds no JSON object")
    return content


def _read_two_files(path: Path) -> BPEParts:
    """GPT-2's layout: `vocab.json` from token to id, `merges.txt` with a pair a line.

    Tokens that were added later are in `added_tokens.json`, and how they are matched in
    `tokenizer_config.json`.
    """
    config = path.with_name("tokenizer_config.json")
    kind = _read_json(config).get("tokenizer_class") if config.is_file() else None
    if str(kind).startswith("Qwen2"):
        raise ValueError(
            f"{path.parent}: tokenizer_class is {kind!r}, which cuts text in another way than "
            f"GPT-2; vocab.json and merges.txt do not say how, so {FILE_NAME} is needed"
        )
    vocab = _read_json(path.with_name("vocab.json"))
    merges_path = path.with_name("merges.txt")
    lines = decode_utf8(merges_path.read_bytes(), str(merges_path)).split("\n")
    merges = [line.rstrip("\r") for line in lines if line and not line.startswith("#version")]
    alphabet = set(byte_alphabet())
    special = {text: index for text, index in vocab.items() if text and not alphabet >= set(text)}
    if END_OF_TEXT in vocab:
        special[END_OF_TEXT] = vocab[END_OF_TEXT]
    entries = [{"content": text, "id": index, "special": True} for text, index in special.items()]
    entries += _added_later(path.parent, vocab)
    unique = {entry["content"]: entry for entry in entries}
    by_id = sorted(unique.values(), key=lambda entry: entry["id"])
    try:
        tokens = huggingface_file.added_tokens(by_id, vocab)
    except ValueError as error:
        raise ValueError(f"{path.parent}: {error}") from None
    foreign = Foreign(tuple(tokens))
    return huggingface_file.assemble(
        vocab, merges, foreign, PreSplitter("gpt2"), False, str(path.parent)
    )


def _added_later(folder: Path, vocab: dict[str, int]) -> list[dict[str, Any]]:
    """The entries of `added_tokens.json` and of `tokenizer_config.json`, where there are such."""
    added, config = folder / "added_tokens.json", folder / "tokenizer_config.json"
    settings = _read_json(config) if config.is_file() else {}
    described = {
        entry["content"]: {**entry, "id": int(index)}
        for index, entry in (settings.get("added_tokens_decoder") or {}).items()
    }
    named = [settings.get(f"{name}_token") for name in ("bos", "eos", "unk", "pad", "sep")]
    named = [token["content"] if isinstance(token, dict) else token for token in named]
    named += settings.get("additional_special_tokens") or []
    ids = _read_json(added) if added.is_file() else {}
    plain = {
        text: {"content": text, "id": index, "special": text in named}
        for text, index in ids.items()
    }
    return list({**plain, **described}.values())
