"""From the settings of a run to its tokens: which text, which tokenizer, which vocabulary."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.storage import own_folder
from tinyalpaca.config import ConfigError, ModelConfig, TrainConfig
from tinyalpaca.console import Say
from tinyalpaca.data import SEPARATOR, Corpus, TokenFile, load_split
from tinyalpaca.data.corpora import NAMED, split_position
from tinyalpaca.data.token_file import is_token_file, unmarked_joins
from tinyalpaca.runs import RunFolder
from tinyalpaca.runs.layout import TOKENIZER
from tinyalpaca.tokenizer import BPETokenizer, CharTokenizer, Tokenizer, load_tokenizer
from tinyalpaca.training.checkpoint import SavedRun
from tinyalpaca.training.task import Data

Texts = tuple[Data, Tokenizer, str]  # what is read: and where it is from
TOKENS = "tokens"  # the folder of a run that has its texts as tokens
SHOWN = 10  # characters that a line lists
DECODED_AT_A_TIME = 1 << 16  # tokens


def read_tokens(
    config: TrainConfig, saved: SavedRun | None, run: RunFolder, tell: Say, warn: Say
) -> Texts:
    """The tokens of the text, mapped from files in the run's folder, so that texts of any size fit.

    Returns:
        The tokens, the tokenizer, and where the text is from.

    Raises:
        FileNotFoundError, ValueError: there is no such text or tokenizer, or it is not a text.
    """
    if is_token_file(config.data):
        return _read_token_files(config, saved, tell)
    try:
        training, validation = load_split(
            config.data, config.validation or config.validation_fraction
        )
    except FileNotFoundError as error:
        if saved is None:
            raise
        raise FileNotFoundError(
            f"the text of this run is not where it was ({error}). Give its new place with --data, "
            "and that of a validation text with --validation"
        ) from None
    except ValueError as error:
        if saved is None or config.data != "-":
            raise
        raise ValueError(
            f"{error}. The text of this run came by standard input: give it again, or a file that "
            "holds it with --data"
        ) from None
    characters = training.count_characters(), validation.count_characters()
    tell(f"Text: {training.source} ({characters[0]:,} characters)")
    tell(f"      {validation.source} ({characters[1]:,} characters)")
    if saved is None:
        tokenizer = make_tokenizer(training, validation, config, tell)
    else:
        tokenizer = load_tokenizer(saved.folder / TOKENIZER)
    for corpus in (training, validation):
        if problem := unmarked_joins(corpus, tokenizer):
            warn(f"Warning: {problem}")
    folder = own_folder(run.path, TOKENS)

    def tokens_of(corpus: Corpus, name: str) -> np.ndarray:
        path = folder / name
        for text in (config.data, config.validation):
            if path.exists() and os.path.exists(text) and os.path.samefile(path, text):
                raise ConfigError(f"{text} would be overwritten: move it out of {folder}")
        built = TokenFile.build(
            *(path, corpus, tokenizer), own_folder=True, say=lambda line: warn(f"Warning: {line}")
        )
        return built.tokens

    data = Data(
        tokens_of(training, "training.tokens"),
        tokens_of(validation, "validation.tokens"),
        characters[1],
    )
    _check_validation(data)
    tell(
        f"Tokens: {len(data.train):,} for training, {len(data.validation):,} for validation, "
        f"{tokenizer.vocab_size} different ones, "
        f"{sum(characters) / max(1, len(data.train) + len(data.validation)):.2f} characters each"
    )
    return data, tokenizer, training.source


def _read_token_files(
    config: TrainConfig, saved: SavedRun | None, tell: Say
) -> tuple[Data, Tokenizer, str]:
    """As `read_tokens`, of a token file that `tinyalpaca tokenize encode` has written."""
    if saved is not None:
        tokenizer = load_tokenizer(saved.folder / TOKENIZER)
    elif config.tokenizer in ("bpe", "char"):
        raise ConfigError(
            f"{config.data} holds tokens: name the tokenizer that made them with --tokenizer"
        )
    else:
        tokenizer = load_tokenizer(config.tokenizer)
    file = TokenFile.open(config.data, tokenizer)
    if config.validation and not is_token_file(config.validation):
        raise ConfigError(
            f"{config.data} holds tokens and {config.validation} does not: make a token file of it "
            "with tinyalpaca tokenize encode"
        )
    if config.validation:
        train, validation = file.tokens, TokenFile.open(config.validation, tokenizer).tokens
    else:
        cut = split_position(len(file), config.validation_fraction, "tokens")
        train, validation = file.tokens[:cut], file.tokens[cut:]
    decoder = tokenizer.decoder()
    characters = sum(
        len(decoder.feed(*validation[start : start + DECODED_AT_A_TIME].tolist()))
        for start in range(0, len(validation), DECODED_AT_A_TIME)
    )
    data = Data(train, validation, characters)
    _check_validation(data)
    tell(f"Tokens: {config.data}, of {file.header.source}")
    tell(
        f"      {len(train):,} for training, {len(validation):,} for validation "
        f"({characters:,} characters), {tokenizer.vocab_size} different ones"
    )
    return data, tokenizer, file.header.source


def _check_validation(data: Data) -> None:
    if len(data.validation) < 2:
        raise ConfigError(
            f"the validation text has {len(data.validation)} token(s); it takes 2 to predict one. "
            "Use a longer text, or a larger --validation-fraction"
        )


def make_tokenizer(
    training: Corpus, validation: Corpus, config: TrainConfig, tell: Say
) -> Tokenizer:
    """The tokenizer that the settings name, or one learned from the text.

    Byte pairs are learned from the training text only. Characters are those of the whole text,
    validation included, as in nanoGPT. That reveals nothing but which characters occur, and
    otherwise a text could not be used if a character occurs only at its end.
    """
    between = [SEPARATOR] if len(training.documents) > 1 else []
    if config.tokenizer == "bpe":
        return BPETokenizer.train(
            training.documents, num_merges=config.num_merges, special_tokens=between
        )
    if config.tokenizer != "char":
        if not os.path.exists(config.tokenizer):
            raise FileNotFoundError(
                f"tokenizer {config.tokenizer!r} is neither bpe nor char nor a file or folder"
            )
        tokenizer = load_tokenizer(config.tokenizer)
        tell(f"Tokenizer: {config.tokenizer} ({tokenizer.vocab_size:,} tokens)")
        return tokenizer
    trained = characters_of(training)
    new = sorted(characters_of(validation) - trained)
    if new:
        shown = ", ".join(map(repr, new[:SHOWN])) + (", ..." if len(new) > SHOWN else "")
        tell(
            f"Characters: {len(trained)} in the training text; {len(new)} more in the validation "
            f"text have tokens too, which are never trained: {shown}"
        )
    return CharTokenizer.train(["".join(trained), *new], between)


def characters_of(corpus: Corpus) -> set[str]:
    """All characters that occur."""
    blocks = chain.from_iterable(document.blocks() for document in corpus.documents)
    return set().union(*map(set, blocks))


def fitted(model: ModelConfig, tokenizer: Tokenizer, warn: Say) -> ModelConfig:
    """The model's configuration with a vocabulary that holds the tokenizer's.

    Raises:
        ConfigError: it is asked for a smaller one.
    """
    if not model.vocab_size:
        return dataclasses.replace(model, vocab_size=tokenizer.vocab_size)
    if model.vocab_size < tokenizer.vocab_size:
        raise ConfigError(
            f"vocab_size is {model.vocab_size}, but the tokenizer has {tokenizer.vocab_size} "
            "tokens: leave --vocab-size out, or make a smaller tokenizer (--num-merges)"
        )
    if model.vocab_size > tokenizer.vocab_size:
        warn(
            f"Warning: vocab_size is {model.vocab_size}, the tokenizer has "
            f"{tokenizer.vocab_size} tokens: {model.vocab_size - tokenizer.vocab_size} rows of the "
            "embedding stand for nothing and are never used."
        )
    return model


def warn_of_positions(model: ModelConfig, training: TrainConfig, warn: Say) -> None:
    """Warn if windows are shorter than `max_seq_len`: later positions stay untrained."""
    trained = training.seq_len - 1
    if trained < model.max_seq_len - 1:
        warn(
            f"Warning: the model takes {model.max_seq_len} tokens, but windows of "
            f"{training.seq_len} train {trained} positions only; generation uses those above "
            f"untrained. Give --seq-len {model.max_seq_len + 1}, or a smaller --max-seq-len."
        )


def windows_that_follow(
    model: Mapping[str, Any], preset: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """`seq_len` for a `max_seq_len` that has been given alone: as far from it as in the preset.

    Args:
        model: the settings of the model that were given.
        preset: the settings that hold without any flag, of model and training together.
        given: the settings of training that were given.
    """
    if "max_seq_len" not in model or "seq_len" in given:
        return {}
    more = preset["seq_len"] - preset["max_seq_len"]
    return {"seq_len": max(2, model["max_seq_len"] + more)}


def placed(config: TrainConfig) -> TrainConfig:
    """With the whole paths of the texts, so that a run is resumed from any folder."""
    return dataclasses.replace(
        config,
        data=whole_path(config.data),
        validation=config.validation and whole_path(config.validation),
        init_from=config.init_from and whole_path(config.init_from),
    )


def whole_path(text: str) -> str:
    """The absolute path of a text that is one, and not a name or standard input."""
    if text in NAMED or text == "-" or not Path(text).exists():
        return text
    return os.path.abspath(text)
