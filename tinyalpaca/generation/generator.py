"""Writes text with a model: as a whole, as a stream, or many texts at once. Also scores a text.

    generator = Generator.from_checkpoint("runs/shakespeare")
    print(generator.generate("ROMEO:", max_new_tokens=200, top_p=0.9, seed=1))

In `tinyalpaca.generation`, `sampling` says how a token is chosen, `windows` which part of a long
text the model sees, `decoder` how logits are computed, `text_stream` how stop strings end a text,
and `device_inference` what runs on a GPU instead.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from minigrad.announce import announce
from minigrad.blas import OneBlasThread
from minigrad.device import Device
from minigrad.parallel import available_cores, choose_backend, in_processes, why_not_processes
from minigrad.state import STATE
from minigrad.tensor import Tensor
from tinyalpaca.chat import ChatError, Message
from tinyalpaca.converting.loading import load
from tinyalpaca.data import Corpus
from tinyalpaca.data.token_file import encoded
from tinyalpaca.evaluation import Score, evaluate, summed_loss
from tinyalpaca.generation.readable import BETWEEN, Readable
from tinyalpaca.generation.ready_model import ReadyModel
from tinyalpaca.generation.sampling import Choose, Sampling, as_sampling
from tinyalpaca.generation.seeds import Seed, sample_rngs, seeds_of
from tinyalpaca.generation.text_stream import TextStream, texts_of
from tinyalpaca.generation.uncached import evaluating
from tinyalpaca.generation.writing import (
    Continuation,
    Decoder,
    Step,
    Writing,
    sampler_for,
    write_steps,
    write_together,
)
from tinyalpaca.model import TinyAlpaca
from tinyalpaca.tokenizer import Tokenizer

__all__ = ["Continuation", "Generator", "Sampling", "Step"]

Stop = str | Iterable[str] | None
Prompt = str | Sequence[int] | np.ndarray  # a text, or token ids
SMALL_MATRIX = 1 << 20  # elements; matmuls with a smaller matrix use a single thread
# With fewer rows another process does not pay off: starting one takes some milliseconds.
ROWS_PER_WORKER = 8
TOKENS_PER_WORKER = 500


class Generator:
    """Writes text with a model.

    It computes on the model's device. The same seed gives the same text on a CPU and on a GPU,
    unless a draw is so close that rounding decides it.

    Inside `minigrad.textbook()` every token is computed by running the whole model without a cache.
    That is slower; it is the reference for the faster ways.

    Args:
        model: every call uses its current weights, so it may be trained in between.
        tokenizer: the one that it was trained with.
        workers: how many processes share a large batch on a CPU; None for one per core.
        graph: on a GPU, compute a token by one CUDA graph; False launches kernels one by one.

    Raises:
        TypeError: there is no tokenizer.
        ValueError: the tokenizer has more tokens than the model.
    """

    model: TinyAlpaca
    tokenizer: Tokenizer

    def __init__(
        self,
        model: TinyAlpaca,
        tokenizer: Tokenizer,
        workers: int | None = None,
        *,
        graph: bool = True,
    ) -> None:
        if not hasattr(tokenizer, "vocab_size"):
            raise TypeError(
                f"Generator(model, tokenizer): a {type(tokenizer).__name__} is no tokenizer"
            )
        size = getattr(getattr(model, "config", None), "vocab_size", tokenizer.vocab_size)
        if size < tokenizer.vocab_size:
            raise ValueError(
                f"the tokenizer has {tokenizer.vocab_size:,} tokens, more than the model's {size:,}"
                ": give the tokenizer that the model was trained with"
            )
        self.model, self.tokenizer = model, tokenizer
        self._readable: Readable | None = None
        self.workers: int = available_cores() if workers is None else workers
        self._ready = ReadyModel(model, tokenizer.vocab_size, graph)

    @classmethod
    def from_checkpoint(
        cls, folder: str | os.PathLike[str], device: Device | str = "cpu", *, graph: bool = True
    ) -> Generator:
        """A generator from a folder that training wrote, or from one of Hugging Face's."""
        loaded = load(folder, device)
        return cls(loaded.model, loaded.tokenizer, graph=graph)

    def generate(
        self,
        prompt: Prompt | Sequence[Prompt],
        max_new_tokens: int = 100,
        sampling: Sampling | Choose | float | None = None,
        *,
        stop: Stop = None,
        seed: Seed = None,
        num_samples: int = 1,
        return_logprobs: bool = False,
        stop_at_end: bool = True,
        allow_all_tokens: bool = False,
        **settings: Any,
    ) -> Any:
        """The continuation of a prompt, without the prompt, or those of many prompts at once.

        Args:
            prompt: a prompt, or a sequence of prompts of any lengths. Each is a text or its token
                ids. If a text is longer than the context, the model sees its end. It may be empty
                if the tokenizer has an end token; the text then begins after that token.
            max_new_tokens: the largest number of tokens to add.
            sampling: how tokens are chosen, see `tinyalpaca.generation.sampling`: a `Sampling`, a
                temperature, or a function of your own.
            settings: the settings of a `Sampling`, instead of one: temperature, top_k, top_p,
                min_p, repetition_penalty.
            stop: a string or several; the text ends before the first one that occurs.
            seed: one seed for all prompts, or one for each. The same seed gives the same text: each
                prompt is continued as if it were alone in the batch. None draws new seeds.
            num_samples: the number of continuations of each prompt. The first one is the same as a
                single continuation.
            return_logprobs: return a `Continuation` instead of a text.
            stop_at_end: end the text at an end token: the tokenizer's `<|endoftext|>` or one that
                the model's maker has named (`ends`). With False the text continues.
            allow_all_tokens: draw from the whole vocabulary. Otherwise the text is always valid
                UTF-8 and consists of tokens that occurred in training, if the model knows them
                (`TinyAlpaca.seen_tokens`, `tinyalpaca.generation.readable`). Probabilities are the
                model's own in both cases.

        Returns:
            A text. For several samples, a list of them; for several prompts, a list of the results
            for each.

        Raises:
            ValueError: a prompt is empty, or a setting is out of range.
            TypeError: a setting is unknown.
        """
        how = as_sampling(sampling, settings)
        check_length(max_new_tokens)
        if not isinstance(num_samples, int | np.integer):
            raise TypeError(f"num_samples must be an integer, not {num_samples!r}")
        if num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, it is {num_samples}")
        alone = is_one_prompt(prompt)
        prompts: list[Prompt] = [prompt] if alone else list(prompt)  # type: ignore[list-item,arg-type]
        stops = texts_of(stop)
        readable = None if allow_all_tokens else self.readable()
        writings = [
            self._writing(text, rng, stops, stop_at_end, readable)
            for text, one in zip(prompts, seeds_of(seed, len(prompts)), strict=True)
            for rng in sample_rngs(one, num_samples)
        ]
        if writings and max_new_tokens:
            self._write(writings, how, max_new_tokens, return_logprobs, readable)
        results: list[Any] = [w.continuation() if return_logprobs else w.text for w in writings]
        if num_samples > 1:
            firsts = range(0, len(results), num_samples)
            results = [results[first : first + num_samples] for first in firsts]
        return results[0] if alone else results

    def chat(self, messages: Sequence[Message], *arguments: Any, **settings: Any) -> Any:
        """The model's answer to a conversation: `generate` after `chat_prompt`.

            generator.chat([{"role": "user", "content": "Who is there?"}], 50)

        Args:
            messages: each with a "role" (system, user, assistant or tool) and a "content".
            arguments, settings: those of `generate` after the prompt.

        Raises:
            ChatError: a message is malformed; the model has no template, or one that refuses the
                messages; jinja2, which templates need, is not installed.
        """
        return self.generate(self.chat_prompt(messages), *arguments, **settings)

    def chat_prompt(self, messages: Sequence[Message]) -> list[int]:
        """The prompt for the answer to a conversation, by the model's template, as tokens.

        Raises:
            ChatError: as `chat`.
        """
        template = getattr(self.model, "chat_template", None)  # your own model may have none
        if template is None:
            raise ChatError(
                "the model has no chat template: its folder's tokenizer_config.json names none, "
                "and there is no chat_template.jinja"
            )
        return self.tokenizer.encode(template.render(messages), allowed_special="all")

    def stream(
        self,
        prompt: Prompt,
        max_new_tokens: int = 100,
        sampling: Sampling | Choose | float | None = None,
        **options: Any,
    ) -> Iterator[str]:
        """Pieces of the continuation as they are written, never empty, never half a character.

        Joined, they are the result of `generate` for the same arguments. `steps` says what must not
        happen between two pieces.

        Args:
            options: the options of `steps`, except for `alternatives`.

        Raises:
            ValueError: at the first piece: the prompt is empty, or a setting is out of range.
        """
        options["alternatives"] = None
        for step in self.steps(prompt, max_new_tokens, sampling, **options):
            if step.text:
                yield step.text

    def steps(
        self,
        prompt: Prompt,
        max_new_tokens: int = 100,
        sampling: Sampling | Choose | float | None = None,
        *,
        stop: Stop = None,
        seed: int | None = None,
        alternatives: int | None = 5,
        stop_at_end: bool = True,
        allow_all_tokens: bool = False,
        **settings: Any,
    ) -> Iterator[Step]:
        """The tokens of the continuation as they are written, each with its alternatives.

        Arguments are those of `generate`. Without alternatives (None) the probabilities are left
        out too, which is faster. Text that was held back because it could have become a stop string
        comes with the last token.

        The model must not change between the first token and the last one: tokens after a change
        would belong neither to the old model nor to the new one.
        """
        how = as_sampling(sampling, settings)
        check_length(max_new_tokens)
        readable = None if allow_all_tokens else self.readable()
        rng = next(sample_rngs(seed, 1))
        writing = self._writing(prompt, rng, stop, stop_at_end, readable)
        size = self.tokenizer.vocab_size
        sampler = sampler_for([writing], how, size, readable, max_new_tokens)

        def write() -> Iterator[Step]:
            decoder, limit = self._decoder([writing], max_new_tokens), self._limit()
            yield from write_steps(writing, decoder, sampler, max_new_tokens, alternatives, limit)

        return write()

    def score(self, text: str | Corpus, *, stride: int = 0, batch_size: int = 32) -> Score:
        """How well the model predicts a text: nats and bits per token and per character.

        The text is read in windows of the context length; its first token is not predicted. As in
        training, the tokenizer's `<|endoftext|>` stands between the documents of a corpus. It is
        predicted too, but does not count as a character.

        Args:
            stride: the distance between windows, in tokens. With 0 they overlap by one token only,
                as in training. With a smaller stride the model sees more text before each token.
            batch_size: the number of windows that are computed at once.

        Raises:
            TypeError: it is no text.
            ValueError: the text has fewer than two tokens, or the stride exceeds the context.
        """
        if not isinstance(text, str | Corpus):
            raise TypeError(f"score() is given one text or corpus, not a {type(text).__name__}")
        device = self._ready.device

        def loss_of(part: tuple[np.ndarray, ...]) -> float:
            ids, targets = (device.asarray(array) for array in part)
            return float(summed_loss(self.model, ids, targets).item())

        if isinstance(text, str):
            tokens, characters = self.tokenizer.encode_array(text), len(text)
        else:
            tokens = np.concatenate([*encoded(text, self.tokenizer), np.zeros(0, np.int64)])
            characters = text.count_characters()
        window = max(2, self.model.config.max_seq_len)
        with evaluating(self.model.modules()):
            return evaluate(
                loss_of,
                tokens,
                characters,
                seq_len=window,
                batch_size=batch_size,
                stride=stride,
            )

    def prepare(self) -> None:
        """Make the preparations of the first call now, for example before timing it."""
        self.readable()
        with self._limit():
            self._ready.prepare()

    def readable(self) -> Readable:
        """The rules about which tokens may be written, unless all are allowed."""
        seen = getattr(self.model, "seen_tokens", None)  # your own model may have none
        if self._readable is None or self._readable.seen is not seen:
            self._readable = Readable(self.tokenizer, seen)
        return self._readable

    def prompt_tokens(self, prompt: Prompt) -> list[int]:
        """The tokens of a prompt, at least one.

        Raises:
            ValueError: the prompt is empty and the tokenizer has no end token to begin with, or an
                id is not one of the tokenizer's.
        """
        if isinstance(prompt, str):
            tokens = [*self.tokenizer.frame[0], *self.tokenizer.encode(prompt)]
        else:
            tokens = [operator.index(token) for token in prompt]
            self.tokenizer.decode_bytes(tokens)  # raises an error if there are no such tokens
        end = self.tokenizer.end_token
        if not tokens and end is None:
            raise ValueError(
                "the prompt is empty: the model needs at least one token to go on from"
            )
        return tokens or [end]  # type: ignore[list-item]

    def ends(self) -> list[int]:
        """The tokens that end a text: the tokenizer's end token, and those the model names."""
        end = self.tokenizer.end_token
        return [*([] if end is None else [end]), *getattr(self.model, "end_tokens", ())]

    def _writing(
        self,
        prompt: Prompt,
        rng: np.random.Generator,
        stop: Stop,
        stop_at_end: bool,
        readable: Readable | None,
    ) -> Writing:
        tokens = self.prompt_tokens(prompt)
        stream = TextStream(self.tokenizer, stop, self.ends() if stop_at_end else ())
        if readable is not None and readable.state_after(tokens) != BETWEEN:
            stream.begin_inside(tokens)
        return Writing(tokens, rng, stream, len(tokens))

    def _decoder(self, writings: Sequence[Writing], max_new_tokens: int) -> Decoder:
        sequences = [w.tokens for w in writings]
        return self._ready.decoder(sequences, max(map(len, sequences)) + max_new_tokens)

    def _limit(self) -> AbstractContextManager[None]:
        if self._ready.on_gpu:
            return nullcontext()
        return OneBlasThread() if self._ready.largest < SMALL_MATRIX else nullcontext()

    def _write(
        self,
        writings: Sequence[Writing],
        sampling: Sampling | Choose,
        max_new_tokens: int,
        with_logprobs: bool,
        readable: Readable | None,
    ) -> None:
        """Continue all sequences, shared among processes."""
        limit = self._limit()
        workers = 1
        single = isinstance(limit, OneBlasThread) and not STATE.textbook
        most = len(writings) // ROWS_PER_WORKER
        most = min(most, len(writings) * max_new_tokens // TOKENS_PER_WORKER, self.workers)
        if single and most > 1:
            if choose_backend() == "processes":
                workers = most
            elif reason := why_not_processes():
                announce(f"texts are written by one process instead of {most}: {reason}")

        def write(number: int) -> list[tuple[list[int], list[str], list[float]]]:
            some = writings[number::workers]
            size = self.tokenizer.vocab_size
            sampler = sampler_for(some, sampling, size, readable, max_new_tokens)
            decoder = self._decoder(some, max_new_tokens)
            write_together(some, decoder, sampler, max_new_tokens, with_logprobs)
            return [(w.tokens, w.pieces, w.logprobs) for w in some]

        with limit:
            if workers > 1:
                self._ready.prepare()  # once, instead of in each process
            for number, results in enumerate(in_processes(write, workers)):
                for writing, result in zip(writings[number::workers], results, strict=True):
                    writing.tokens, writing.pieces, writing.logprobs = result


def is_one_prompt(prompt: Prompt | Sequence[Prompt]) -> bool:
    """Whether it is a text or its token ids, and not a sequence of prompts."""
    if isinstance(prompt, str):
        return True
    if isinstance(prompt, Tensor):
        raise TypeError("a prompt is a text or its token ids, not a Tensor: .tolist() gives ids")
    if not hasattr(prompt, "__len__"):
        raise TypeError(f"a prompt is a text or its token ids, not a {type(prompt).__name__}")
    return len(prompt) > 0 and isinstance(prompt[0], int | np.integer)


def check_length(max_new_tokens: int) -> None:
    """Raise ValueError for a negative number of tokens, TypeError if it is no number."""
    if not isinstance(max_new_tokens, int | np.integer):
        raise TypeError(f"max_new_tokens must be an integer, not {max_new_tokens!r}")
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens must not be negative, it is {max_new_tokens}")
