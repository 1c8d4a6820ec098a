"""Generated text is valid UTF-8 and of tokens seen in training, in every way of generation."""

import json
import os
from typing import Any

import numpy as np
import pytest

import minigrad
from tests.tinyalpaca.runs import train, write_text
from tests.tinyalpaca.tiny_models import TEXT, tiny_generator, tiny_model, tiny_tokenizer
from tinyalpaca.cli import example
from tinyalpaca.data import RandomWindows, TinyPacaDataset
from tinyalpaca.generation import Generator
from tinyalpaca.generation.readable import BETWEEN, NEVER, Readable, states_after
from tinyalpaca.generation.sampling import Sampler, Sampling
from tinyalpaca.generation.text_stream import TextStream
from tinyalpaca.generation.writing import Writing, sampler_for, write_together
from tinyalpaca.runs import load_model, save_model
from tinyalpaca.tokenizer import BPETokenizer, CharTokenizer

BYTES = [bytes([byte]) for byte in range(256)]
SAMPLING = [{}, {"temperature": 0}, {"temperature": 2.0}, {"top_k": 7}, {"top_p": 0.8}]
HALVES = [b"\xf0\x9f", b"\xa6\x99", b"\xe2\x82", b"\xac!", b"a\xc3", b"\xa9\xc3", b"\x99\xf0\x9f"]


def can_go_on(data: bytes) -> bool:
    """Whether bytes are the beginning of valid UTF-8, by Python's decoder."""
    ends = [b""] + [bytes([a]) for a in (0x80, 0x90, 0xA0)]
    ends += [first + b"\x80" * more for first in ends[1:] for more in (1, 2)]
    for end in ends:
        try:
            (data + end).decode("utf-8")
        except UnicodeDecodeError:
            continue
        return True
    return False


def halves_tokenizer() -> BPETokenizer:
    """A tokenizer of single bytes, and of tokens that begin, end or cross characters."""
    plain = BPETokenizer.from_merges([])
    return BPETokenizer([*plain.vocabulary, *HALVES], [])


def test_the_automaton_is_pythons_decoder(rng):
    """From every state, for every byte and for longer tokens: overlong forms, surrogates, numbers
    beyond the last code point, and tokens that end inside a character."""
    before = [b"", b"\xc3", b"\xe2", b"\xf1", b"\xe0", b"\xed", b"\xf0", b"\xf4"]
    state_of = [int(states_after([start])[BETWEEN, 0]) for start in before]
    assert sorted(state_of) == list(range(8))
    tokens = [*BYTES, *(a + b for a in BYTES[0x7E::7] for b in BYTES[0x7E::5]), *HALVES, b""]
    following = states_after(tokens)
    for start, state in zip(before, state_of, strict=True):
        for number, token in enumerate(tokens):
            possible = can_go_on(start + token)
            assert (following[state, number] != NEVER) == possible, (start, token)


@pytest.mark.parametrize(
    ("count", "sampling"),
    [(2000, SAMPLING[0]), *(pytest.param(10_000, s, marks=pytest.mark.slow) for s in SAMPLING)],
)
@pytest.mark.parametrize("tokenizer", [tiny_tokenizer(), halves_tokenizer()], ids=["bpe", "halves"])
def test_thousands_of_tokens_of_an_untrained_model_are_utf8(tokenizer, count, sampling):
    model = tiny_model(tokenizer.vocab_size, seed=3)
    written = Generator(model, tokenizer).generate(
        "the", count, seed=1, return_logprobs=True, **sampling
    )
    assert len(written.tokens) == count
    assert tokenizer.decode_bytes(written.tokens).decode("utf-8", "strict") == written.text
    if sampling.get("temperature") != 0:
        assert any(len(character.encode()) > 2 for character in written.text)


def test_every_way_to_write_gives_the_same_text():
    """Alone, in a batch, as a stream, step by step, without a cache, by several processes."""
    generator = tiny_generator()
    alone = [generator.generate("é", 70, seed=seed) for seed in range(16)]
    assert generator.generate(["é"] * 16, 70, seed=range(16)) == alone
    assert ["".join(generator.stream("é", 70, seed=seed)) for seed in range(16)] == alone
    steps = [generator.steps("é", 70, seed=seed) for seed in range(3)]
    assert ["".join(step.text for step in one) for one in steps] == alone[:3]
    with minigrad.textbook():
        assert generator.generate("é", 70, seed=2) == alone[2]
    for text in alone:
        text.encode("utf-8")
        assert "\ufffd" not in text
    assert any(not text.isascii() for text in alone)
    samples = generator.generate("é", 70, seed=1, num_samples=3)
    assert samples[0] == alone[1] and not any("\ufffd" in sample for sample in samples)


@pytest.mark.parametrize("length", range(1, 9))
def test_a_text_of_any_length_ends_between_characters(length):
    tokenizer = halves_tokenizer()
    generator = Generator(tiny_model(tokenizer.vocab_size, seed=1), tokenizer)
    for written in generator.generate(
        ["x"] * 40, length, temperature=1.5, seed=range(40), return_logprobs=True
    ):
        assert len(written.tokens) == length
        assert tokenizer.decode_bytes(written.tokens).decode("utf-8", "strict") == written.text


def test_what_has_never_been_seen_is_never_drawn():
    """If a character needs a token that was never seen, its first bytes are not drawn either."""
    tokenizer = tiny_tokenizer(num_merges=0)
    seen = np.zeros(tokenizer.vocab_size, bool)
    seen[tokenizer.encode("abc é")] = True
    seen[tokenizer.encode("\ud7ff")[0]] = True  # but nothing that could follow it
    model = tiny_model(tokenizer.vocab_size, seed=5)
    model.seen_tokens = seen
    generator = Generator(model, tokenizer)
    for setting in SAMPLING:
        for text in generator.generate(["a", "é"], 200, seed=1, **setting):
            assert set(text) <= set("abc é")
    free = generator.generate("a", 200, seed=1, return_logprobs=True, allow_all_tokens=True)
    assert not seen[free.tokens].all() and "\ufffd" in free.text


def continued(tokens, count, tokenizer, readable, seed=0) -> Any:
    """The continuation of token ids."""
    stream = TextStream(tokenizer)
    if readable.state_after(tokens) != BETWEEN:
        stream.begin_inside(tokens)
    writing = Writing(list(tokens), np.random.default_rng(seed), stream, len(tokens))
    sampler = sampler_for([writing], Sampling(), tokenizer.vocab_size, readable, count)

    class Noise:
        def next_logits(self) -> np.ndarray:
            return np.random.default_rng(len(writing.tokens)).standard_normal(
                (1, tokenizer.vocab_size)
            )

    write_together([writing], Noise(), sampler, count, False)
    return writing


def test_a_prompt_that_ends_inside_a_character_goes_on_with_it():
    """The character is the first of the new text. If no seen token completes it, another does."""
    tokenizer = tiny_tokenizer(num_merges=0)
    llama = tokenizer.encode("🦙")
    only_ascii = np.zeros(tokenizer.vocab_size, bool)
    only_ascii[tokenizer.encode("abc")] = True
    for seen in (None, only_ascii):
        readable = Readable(tokenizer, seen)
        for length in (1, 2, 3):
            writing = continued(llama[:length], 12, tokenizer, readable)
            whole = tokenizer.decode_bytes(writing.tokens).decode("utf-8", "strict")
            assert writing.text == whole
            if seen is not None:
                assert set(whole[1:]) <= set("abc")


def test_a_character_that_cannot_be_ended_any_more_is_not_written():
    tokenizer = tiny_tokenizer(num_merges=0)
    readable = Readable(tokenizer)
    writing = continued(tokenizer.encode("🦙")[:1], 2, tokenizer, readable)
    assert len(writing.new_tokens) == 2 and writing.text == ""


def test_where_a_text_stands_is_what_a_decoder_says():
    tokenizer = tiny_tokenizer(num_merges=0)
    readable = Readable(tokenizer)
    by_byte = {tokenizer.token_bytes(token): token for token in range(256)}
    for data, open_bytes in [
        (b"", b""), (b"abc", b""), ("é".encode(), b""), (b"a\xc3", b"\xc3"),
        (b"\xe2\x82", b"\xe2\x82"), (b"\xf0\x9f\xa6", b"\xf0\x9f\xa6"), (b"\x80\x80\x80", b""),
        (b"\xff", b""), (b"\xe0\x80", b""), (b"\xf5\x80", b""), (b"\xc3\x28", b""),
        ("🦙".encode() + b"\xed", b"\xed"), (b"\xed\xa0", b""),
    ]:  # fmt: skip
        wanted = int(states_after([open_bytes])[BETWEEN, 0])
        assert readable.state_after([by_byte[bytes([byte])] for byte in data]) == wanted, data


def test_characters_are_left_alone():
    tokenizer = CharTokenizer.train(TEXT)
    assert Readable(tokenizer).everything
    generator = Generator(tiny_model(tokenizer.vocab_size), tokenizer)
    wanted = generator.generate("the", 80, seed=2, allow_all_tokens=True)
    assert generator.generate("the", 80, seed=2) == wanted


@pytest.mark.parametrize(
    "setting", [{}, {"temperature": 0}, {"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.2}]
)
@pytest.mark.parametrize("rows", [1, 6])
def test_the_filters_work_as_if_the_vocabulary_were_only_the_rest(setting, rows, rng):
    """With the same random numbers, a smaller vocabulary gives the same tokens."""
    tokenizer = tiny_tokenizer(num_merges=0)
    seen = np.zeros(tokenizer.vocab_size, bool)
    seen[tokenizer.encode("abcdefgh")] = True
    ids = np.flatnonzero(seen)
    logits = rng.standard_normal((rows, tokenizer.vocab_size)) * 3
    sampling = Sampling(**{"temperature": 0.9, "repetition_penalty": 1.2, **setting})

    def sampler(size: int, readable: Readable | None) -> Sampler:
        rngs = [np.random.default_rng(row) for row in range(rows)]
        return Sampler(sampling, rngs, size, [[]] * rows, readable, 30)

    ours, smaller = sampler(len(seen), Readable(tokenizer, seen)), sampler(len(ids), None)
    before = logits.copy()
    for _ in range(20):
        assert ours.pick(logits) == ids[smaller.pick(logits[:, ids])].tolist()
    assert np.array_equal(logits, before)  # the caller computes log-probabilities from them


def test_probabilities_stay_the_models_own():
    generator = tiny_generator()
    score = generator.score(TEXT)
    generator.model.seen_tokens = np.zeros(generator.tokenizer.vocab_size, bool)
    generator.model.seen_tokens[generator.tokenizer.encode("abc")] = True
    assert generator.score(TEXT) == score
    written = generator.generate("a", 30, temperature=0, return_logprobs=True)
    steps = list(generator.steps("a", 30, temperature=0, alternatives=2))
    assert [step.token for step in steps] == written.tokens
    for step, logprob in zip(steps, written.logprobs, strict=True):
        assert step.logprob == pytest.approx(logprob, abs=1e-5)
        assert step.alternatives[0] == (step.token, pytest.approx(np.exp(step.logprob)))
    assert max(written.logprobs) < np.log(0.9)  # the rest is on other tokens


@pytest.mark.parametrize("kind", [TinyPacaDataset, RandomWindows])
@pytest.mark.parametrize("count", [5, 6, 23, 25])
def test_targets_are_the_y_of_all_windows(kind, count, monkeypatch):
    monkeypatch.setattr("tinyalpaca.data.windows.READ_AT_A_TIME", 7)
    data = kind(np.arange(count), 5)
    _, y = data.batch_at(np.arange(len(data)))
    assert np.flatnonzero(data.targets_among(40)).tolist() == np.unique(y).tolist()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seen")
    trained = train(folder / "run", write_text(folder), epoch_sample_tokens=50)
    return trained, folder / "run"


def test_a_run_keeps_what_it_has_seen_and_samples_are_of_that(run, tmp_path):
    trained, folder = run
    text = (folder.parent / "text.txt").read_text(encoding="utf-8")
    for path in (folder, folder / "checkpoints/latest"):
        model, tokenizer, _ = load_model(path)
        seen = [tokenizer.decode([token]) for token in np.flatnonzero(model.seen_tokens)]
        assert all(token in text for token in seen) and len(seen) < 60
    for record in trained.state.records:
        assert set(record["sample"]) <= set(text) | set("the ")
    save_model(tmp_path, model, tokenizer)  # the record is saved with the model
    assert np.array_equal(load_model(tmp_path).model.seen_tokens, model.seen_tokens)


def test_the_command(run, tmp_path, capsys):
    _, folder = run
    text = (folder.parent / "text.txt").read_text(encoding="utf-8")
    argv = ["--checkpoint", str(folder), "--prompt", "the ", "--max-new-tokens", "80"]
    argv += ["--seed", "3", "--temperature", "3"]
    page = tmp_path / "page.html"
    for more in ([], ["--num-samples", "3"], ["--json"], ["--html", str(page)]):
        assert example("generate", argv + more) == 0
        out, err = capsys.readouterr()
        assert "seen" not in err
        if more == ["--json"]:
            out = json.loads(out)["samples"][0]["text"]
        assert set(out) <= set(text) | set("=123of ")
    assert "\ufffd" not in page.read_text(encoding="utf-8")
    assert example("generate", [*argv, "--allow-all-tokens"]) == 0
    assert not set(capsys.readouterr().out) <= set(text)


def test_a_checkpoint_that_does_not_say_is_told(run, tmp_path, capsys):
    loaded = load_model(run[1])
    loaded.model.seen_tokens = None
    save_model(tmp_path, loaded.model, loaded.tokenizer, loaded.training)
    argv = ["--checkpoint", str(tmp_path), "--prompt", "the ", "--max-new-tokens", "9"]
    assert example("generate", argv) == 0
    assert "does not say which tokens training has seen" in capsys.readouterr().err


@pytest.mark.parametrize("bad", [3, [3], [[1]], [[2, 1]], [[0, 10**9]], [["a", "b"]], [[True, 1]]])
def test_a_list_of_seen_tokens_that_makes_no_sense_names_the_file(run, tmp_path, capsys, bad):
    loaded = load_model(run[1])
    save_model(tmp_path, loaded.model, loaded.tokenizer)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**config, "seen_tokens": bad}))
    os.unlink(tmp_path / "SHA256SUMS")
    assert example("generate", ["--checkpoint", str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ") and "config.json" in err and err.count("\n") == 1
