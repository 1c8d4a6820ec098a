"""Tokenizer files: Hugging Face's `tokenizer.json` both ways, GPT-2's two files, `.vocab`.

Hugging Face's `tokenizers` writes a byte-level token as text, one printable character a byte
(`byte_alphabet`), a merge as the pair of such texts, and the pre-splitter by name or as a pattern.
Files of theirs that do something which we would not do the same way are refused, not guessed at.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from minigrad.files import write_text_atomically
from tinyalpaca.corpus.text_files import decode_utf8
from tinyalpaca.tokenizer import BPETokenizer
from tinyalpaca.tokenizing import char_tokenizer
from tinyalpaca.tokenizing.original_vocab import OriginalTokenizer
from tinyalpaca.tokenizing.pretokenize import PATTERNS, PreSplitter, byte_alphabet
from tinyalpaca.tokenizing.tokenizer_base import Tokenizer

FILE_NAME = "tokenizer.json"


def save(tokenizer: BPETokenizer, path: str | os.PathLike[str]) -> Path:
    """Write `tokenizer.json` (or the name given) and the `.vocab` beside it; return its path."""
    path = Path(path)
    path = path / FILE_NAME if path.is_dir() else path
    content = json.dumps(_to_json(tokenizer), ensure_ascii=False, indent=1)
    write_text_atomically(
        path.with_suffix(".vocab"),
        readable_vocabulary(tokenizer),
        make_folders=True,
        follow_links=False,  # nobody has asked for this name
    )
    write_text_atomically(path, content + "\n")
    return path


def _to_json(tokenizer: BPETokenizer) -> dict:
    alphabet = byte_alphabet()
    names = ["".join(alphabet[byte] for byte in token) for token in tokenizer.vocabulary]
    for text, index in tokenizer.special_tokens.items():
        names[index] = text
    byte_level = {"type": "ByteLevel", "trim_offsets": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": index,
                "content": text,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for text, index in sorted(tokenizer.special_tokens.items(), key=lambda item: item[1])
        ],
        "normalizer": None,
        "pre_tokenizer": _splitter_to_json(tokenizer),
        "post_processor": None,
        "decoder": {**byte_level, "add_prefix_space": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {name: index for index, name in enumerate(names)},
            "merges": [[names[left], names[right]] for left, right in tokenizer.merges],
        },
    }


def _splitter_to_json(tokenizer: BPETokenizer) -> dict:
    name = tokenizer.splitter.name
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": tokenizer.add_prefix_space,
        "trim_offsets": True,
        "use_regex": name == "gpt2",
    }
    if name in ("gpt2", "none"):
        return byte_level
    split = {
        "type": "Split",
        "pattern": {"Regex": tokenizer.splitter.pattern},
        "behavior": "Isolated",
        "invert": False,
    }
    return {"type": "Sequence", "pretokenizers": [split, byte_level]}


def readable_vocabulary(tokenizer: BPETokenizer) -> str:
    """A line for each token: its id, its text, and the two tokens that were merged into it."""
    merged: dict[bytes, tuple[int, int]] = {}
    for pair in tokenizer.merges:
        merged.setdefault(tokenizer.vocabulary[pair[0]] + tokenizer.vocabulary[pair[1]], pair)
    special = set(tokenizer.special_tokens.values())
    lines = []
    for index, token in enumerate(tokenizer.vocabulary):
        line = f"{index:>6}  {readable_token(token)}"
        if index in special:
            line += "  special token"
        elif token in merged and len(token) > 1:
            parts = (f"{readable_token(tokenizer.vocabulary[i])} ({i})" for i in merged[token])
            line += "  = " + " + ".join(parts)
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


def load_any(path: str | os.PathLike[str]) -> Tokenizer:
    """See `tinyalpaca.tokenizer.load_tokenizer`."""
    path = _file_in(Path(path))
    try:
        return _load_file(path)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} does not have the form of a tokenizer file ({error!r})") from None


def _load_file(path: Path) -> Tokenizer:
    if path.name in ("vocab.json", "merges.txt") and path.with_name("merges.txt").exists():
        return _load_two_files(path)
    content = _read_json(path)
    if content.get("format") == char_tokenizer.FORMAT:
        return char_tokenizer.CharTokenizer.from_json(content, str(path))
    if content and all(key.isdecimal() for key in content):
        return OriginalTokenizer.from_json(content, str(path))
    return _from_json(content, str(path))


def load_bpe(path: str | os.PathLike[str]) -> BPETokenizer:
    """See `BPETokenizer.load`."""
    tokenizer = load_any(path)
    if not isinstance(tokenizer, BPETokenizer):
        kind = type(tokenizer).__name__
        raise ValueError(f"{path} holds a {kind}, not a BPE tokenizer; use load_tokenizer")
    return tokenizer


def _file_in(path: Path) -> Path:
    if not path.is_dir():
        return path
    for name in (FILE_NAME, "vocab.json"):
        if (path / name).exists():
            return path / name
    raise FileNotFoundError(f"{path} has neither {FILE_NAME} nor vocab.json with merges.txt")


def _read_json(path: Path) -> dict:
    try:
        content = json.loads(decode_utf8(path.read_bytes(), str(path)))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path} is not complete JSON ({error}): it was cut short, or is another kind of file"
        ) from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a tokenizer file: it holds no JSON object")
    return content


def _load_two_files(path: Path) -> BPETokenizer:
    """GPT-2's layout: `vocab.json` from token to id, `merges.txt` with a pair a line."""
    vocab = _read_json(path.with_name("vocab.json"))
    merges_path = path.with_name("merges.txt")
    lines = decode_utf8(merges_path.read_bytes(), str(merges_path)).split("\n")
    merges = [line.rstrip("\r") for line in lines if line and not line.startswith("#version")]
    alphabet = set(byte_alphabet())
    special = {text: index for text, index in vocab.items() if text and not alphabet >= set(text)}
    if "<|endoftext|>" in vocab:
        special["<|endoftext|>"] = vocab["<|endoftext|>"]
    return _assemble(vocab, merges, special, PreSplitter("gpt2"), False, str(path.parent))


def _from_json(content: dict, name: str) -> BPETokenizer:
    model = content.get("model")
    if not isinstance(model, dict) or not {"vocab", "merges"} <= model.keys():
        raise ValueError(
            f"{name} is not a BPE tokenizer file: it has no model with a vocabulary and merges"
        )
    if model.get("type", "BPE") != "BPE":
        raise ValueError(f"{name} holds a {model['type']} model; only BPE can be loaded")
    for setting in (
        *("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"),
        *("fuse_unk", "byte_fallback", "ignore_merges"),
    ):
        if model.get(setting):
            raise ValueError(f"{name}: {setting} = {model[setting]!r} is not supported")
    if content.get("normalizer"):
        raise ValueError(
            f"{name} changes text before encoding (normalizer {content['normalizer'].get('type')}),"
            " which a lossless tokenizer does not"
        )
    special = {}
    for token in content.get("added_tokens") or []:
        for setting in ("single_word", "lstrip", "rstrip"):
            if token.get(setting):
                raise ValueError(
                    f"{name}: special token {token['content']!r} has {setting}, not supported"
                )
        special[token["content"]] = token["id"]
    splitter, add_prefix_space = _splitter_from_json(content.get("pre_tokenizer"), name)
    vocab = {**model["vocab"], **special}
    return _assemble(vocab, model["merges"], special, splitter, add_prefix_space, name)


def _splitter_from_json(content: dict | None, name: str) -> tuple[PreSplitter, bool]:
    parts = (content or {}).get("pretokenizers", [content])
    *splits, byte_level = parts
    if not byte_level or byte_level.get("type") != "ByteLevel" or len(splits) > 1:
        raise ValueError(
            f"{name} is not a byte-level BPE: its pre_tokenizer must be ByteLevel, or Split and "
            "ByteLevel"
        )
    add_prefix_space = bool(byte_level.get("add_prefix_space", True))
    use_regex = byte_level.get("use_regex", True)
    if not splits:
        return PreSplitter("gpt2" if use_regex else "none"), add_prefix_space
    [split] = splits
    pattern = (split.get("pattern") or {}).get("Regex")
    isolated = split.get("behavior") == "Isolated" and not split.get("invert")
    if split.get("type") != "Split" or not pattern or not isolated or use_regex or add_prefix_space:
        raise ValueError(f"{name}: its pre_tokenizer {split.get('type')} is not supported")
    known = {pattern: rule for rule, pattern in PATTERNS.items()}
    return PreSplitter(known.get(pattern, "custom"), None if pattern in known else pattern), False


def _assemble(
    vocab: dict[str, int],
    merges: Sequence[str | Sequence[str]],
    special: dict[str, int],
    splitter: PreSplitter,
    add_prefix_space: bool,
    name: str,
) -> BPETokenizer:
    """Check everything that encoding relies on, and translate text to bytes."""
    byte_of = {character: byte for byte, character in enumerate(byte_alphabet())}
    tokens: dict[int, bytes] = {}
    for text, index in vocab.items():
        if not isinstance(index, int) or not 0 <= index < len(vocab) or index in tokens:
            raise ValueError(
                f"{name}: id {index!r} of token {text!r} is not one of 0 to {len(vocab) - 1}, each "
                "used once"
            )
        if text in special:
            tokens[index] = text.encode("utf-8")
        elif all(character in byte_of for character in text):
            tokens[index] = bytes(byte_of[character] for character in text)
        else:
            raise ValueError(
                f"{name} is not a byte-level BPE: token {text!r} holds characters that stand for "
                "no byte"
            )
    made = {text for text in vocab if len(text) == 1}
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
    vocabulary = [tokens[index] for index in range(len(tokens))]
    return BPETokenizer(vocabulary, pairs, special, splitter, add_prefix_space)
