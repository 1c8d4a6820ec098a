import itertools

import numpy as np
import pytest

import minigrad
from minigrad.optim import SGD
from tests.tinyalpaca.tiny_models import LLAMA, TEXT, tiny_generator, tiny_model, tiny_tokenizer
from tinyalpaca.generation import Continuation, Generator, Sampling
from tinyalpaca.generation.sampling import log_probabilities
from tinyalpaca.runs import save_model
from tinyalpaca.tokenizer import CharTokenizer

SAMPLING = [
    {},
    {"temperature": 0},
    {"temperature": 1.0, "top_k": 12},
    {"temperature": 1.2, "top_p": 0.9},
    {"temperature": 1.1, "min_p": 0.05, "repetition_penalty": 1.3},
]
MODELS = [
    {},
    {"pre_norm": True, "activation": "gelu", "tie_weights": True},
    {"pre_norm": True, "norm": "rms", "positions": "rotary", "bias": False, "activation": "silu"},
    LLAMA,
]


@pytest.fixture(scope="module")
def generator():
    return tiny_generator()


@pytest.mark.parametrize(
    ("options", "sampling"),
    [(MODELS[0], SAMPLING[0]), (MODELS[1], SAMPLING[1]), (MODELS[2], SAMPLING[4])]
    + [(MODELS[3], SAMPLING[0])]
    + [
        pytest.param(options, sampling, marks=pytest.mark.slow)
        for options in MODELS
        for sampling in SAMPLING
    ],
)
def test_the_cache_changes_no_token(options, sampling):
    """With the same seed, alone and in a batch, several times beyond the context length (11)."""
    generator = tiny_generator(**options)
    prompts = ["the", "the cat sat on the mat, the hat", "é", "🦙 that"]
    with minigrad.textbook():
        expected = generator.generate(prompts, 40, seed=5, return_logprobs=True, **sampling)
    together = generator.generate(prompts, 40, seed=5, return_logprobs=True, **sampling)
    alone = [
        generator.generate(prompt, 40, seed=5, return_logprobs=True, **sampling)
        for prompt in prompts
    ]
    for uncached, *cached in zip(expected, together, alone, strict=True):
        assert len(uncached.tokens) == 40
        for continuation in cached:
            assert continuation.tokens == uncached.tokens
            assert continuation.text == uncached.text
            np.testing.assert_allclose(continuation.logprobs, uncached.logprobs, atol=2e-5)


def test_a_long_text_is_the_same_with_and_without_the_cache(generator):
    with minigrad.textbook():
        expected = generator.generate("the cat", 400, temperature=1.0, seed=9)
    assert generator.generate("the cat", 400, temperature=1.0, seed=9) == expected


@pytest.mark.parametrize("sampling", SAMPLING)
def test_a_stream_joined_is_what_generate_returns(generator, sampling):
    pieces = list(generator.stream("the hat", 60, seed=3, **sampling))
    assert "".join(pieces) == generator.generate("the hat", 60, seed=3, **sampling)
    assert len(pieces) > 20
    assert all(pieces)


def test_a_stream_never_gives_half_a_character():
    """With a model that writes only llama emojis, one byte at a time."""
    tokenizer = tiny_tokenizer(num_merges=0)
    model = tiny_model(tokenizer.vocab_size, spread=0)
    llama = tokenizer.encode("🦙")
    generator = Generator(model, tokenizer)
    cycle = itertools.cycle(llama)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "tinyalpaca.generation.sampling.Sampler.pick", lambda self, logits: [next(cycle)]
        )
        assert list(generator.stream("x", 8)) == ["🦙", "🦙"]
        assert list(generator.stream("x", 6)) == ["🦙", "\ufffd"]


def test_samples_differ_and_the_first_is_the_single_one(generator):
    samples = generator.generate("the", 30, seed=4, num_samples=5)
    assert len(set(samples)) == 5
    assert samples[0] == generator.generate("the", 30, seed=4)
    assert samples == generator.generate("the", 30, seed=4, num_samples=5)
    assert samples[:3] == generator.generate("the", 30, seed=4, num_samples=3)


def test_results_do_not_depend_on_what_else_is_in_the_batch(monkeypatch):
    """They do not depend on the number of processes either."""
    monkeypatch.setattr("tinyalpaca.generation.generator.TOKENS_PER_WORKER", 100)
    prompts = [TEXT[i : i + 3 + i] for i in range(20)]
    options = {"temperature": 1.0, "num_samples": 2, "stop": ["at", "zz"]}
    batches = [
        Generator(g.model, g.tokenizer, workers).generate(prompts, 25, seed=range(20), **options)
        for g in [tiny_generator()]
        for workers in (1, 2, 5)
    ]
    assert batches[0] == batches[1] == batches[2]
    for seed in (0, 7, 19):
        alone = tiny_generator().generate(prompts[seed], 25, seed=seed, **options)
        assert alone == batches[0][seed]


def test_without_a_seed_texts_differ(generator):
    assert generator.generate("the", 30) != generator.generate("the", 30)
    assert len(set(generator.generate(["the"] * 3, 30))) == 3


def test_shapes_of_what_comes_back(generator):
    assert isinstance(generator.generate("a", 2), str)
    assert [type(x) for x in generator.generate(["a", "b"], 2)] == [str, str]
    assert [len(x) for x in generator.generate(["a", "b"], 2, num_samples=3)] == [3, 3]
    assert isinstance(generator.generate("a", 2, return_logprobs=True), Continuation)
    assert generator.generate([], 2) == []


def test_logprobs_are_the_models_own(generator):
    """They are computed before penalty, temperature and filters."""
    prompt = "the cat"
    result = generator.generate(
        prompt, 4, 0.5, top_k=5, repetition_penalty=1.7, seed=1, return_logprobs=True
    )
    ids = generator.tokenizer.encode(prompt)
    for token, logprob in zip(result.tokens, result.logprobs, strict=True):
        logits = generator.model(np.array([ids])).numpy()[0, -1, : generator.tokenizer.vocab_size]
        assert logprob == pytest.approx(log_probabilities(logits)[token], abs=1e-5)
        ids.append(token)


def test_a_stop_string_ends_the_text_before_it(generator):
    whole = generator.generate("the", 200, seed=2)
    for stop in (whole[20:22], whole[50], [whole[40:43], "not in there"]):
        first = min(
            whole.find(s) for s in ([stop] if isinstance(stop, str) else stop) if s in whole
        )
        assert generator.generate("the", 200, seed=2, stop=stop) == whole[:first]
        assert "".join(generator.stream("the", 200, seed=2, stop=stop)) == whole[:first]
        steps = list(generator.steps("the", 200, seed=2, stop=stop))
        assert "".join(step.text for step in steps) == whole[:first]
        result = generator.generate("the", 200, seed=2, stop=stop, return_logprobs=True)
        assert result.tokens == [step.token for step in steps]
        assert len(result.logprobs) == len(result.tokens)


def test_steps_tell_what_might_have_been(generator):
    greedy = list(generator.steps("the", 12, temperature=0, alternatives=4))
    assert len(greedy) == 12
    for step in greedy:
        tokens, probabilities = zip(*step.alternatives, strict=True)
        assert len(tokens) == 4
        assert tokens[0] == step.token
        assert np.exp(step.logprob) == pytest.approx(probabilities[0])
        assert list(probabilities) == sorted(probabilities, reverse=True)


def test_no_padding_of_the_vocabulary_is_ever_chosen():
    """The model has more rows than the tokenizer has tokens, and gives those the highest logits."""
    generator = tiny_generator(padding=5)
    size = generator.tokenizer.vocab_size
    bias = generator.model.final_linear.bias
    bias.assign(np.where(np.arange(size + 5) >= size, 100, bias.data).astype(np.float32))
    for sampling in SAMPLING:
        result = generator.generate("the", 30, seed=0, return_logprobs=True, **sampling)
        assert max(result.tokens) < size


def test_a_model_that_is_trained_on_is_seen_at_once():
    generator = tiny_generator()
    before = generator.generate("the", 30, temperature=0)
    parameters = generator.model.parameters()
    generator.model.loss(np.array([[1, 2, 3]]), np.array([[4, 5, 6]])).backward()
    SGD(parameters, lr=5.0).step()
    with minigrad.textbook():
        expected = generator.generate("the", 30, temperature=0)
    assert generator.generate("the", 30, temperature=0) == expected != before


def test_dropout_is_off_and_the_models_mode_stays_as_it_was():
    generator = tiny_generator(dropout=0.5)
    generator.model.train()
    texts = {generator.generate("the", 20, seed=0)}
    with minigrad.textbook():
        texts.add(generator.generate("the", 20, seed=0))
    assert len(texts) == 1
    assert generator.score("the cat").nats == generator.score("the cat").nats
    assert generator.model.training
    assert generator.model.decoder_layers[0].training


def test_from_checkpoint(tmp_path, generator):
    tokenizer = generator.tokenizer
    save_model(tmp_path, generator.model, tokenizer)
    loaded = Generator.from_checkpoint(tmp_path)
    assert loaded.generate("the", 20, seed=0) == generator.generate("the", 20, seed=0)


@pytest.mark.parametrize("how", ["generate", "stream", "steps"])
@pytest.mark.parametrize(
    ("prompt", "setting", "message"),
    [
        ("", {}, "the prompt is empty: the model needs at least one token"),
        ("a", {"max_new_tokens": -1}, "max_new_tokens must not be negative, it is -1"),
        ("a", {"temperature": -1.0}, "temperature must be a number and not negative, it is -1.0"),
        ("a", {"top_k": -3}, "top_k must be at least 1"),
        ("a", {"stop": ""}, "a stop string is empty"),
        ("a", {"seed": -1}, "seed must not be negative, it is -1"),
    ],
)
def test_what_makes_no_sense_is_an_error(generator, how, prompt, setting, message):
    with pytest.raises(ValueError, match=message):
        list(getattr(generator, how)(prompt, **setting))


def test_errors_of_batches(generator):
    with pytest.raises(ValueError, match="the prompt is empty"):
        generator.generate(["a", ""])
    with pytest.raises(ValueError, match="num_samples must be at least 1, it is 0"):
        generator.generate("a", num_samples=0)
    with pytest.raises(ValueError, match="2 seeds for 3 prompts"):
        generator.generate(["a", "b", "c"], seed=[1, 2])


@pytest.mark.parametrize("sampling", SAMPLING)
def test_no_new_tokens_is_no_text(generator, sampling):
    assert generator.generate("the", 0, **sampling) == ""
    assert list(generator.stream("the", 0, **sampling)) == []
    assert generator.generate("the", 0, return_logprobs=True) == Continuation("", [], [])


def test_how_tokens_are_chosen_is_said_in_one_way(generator):
    """By a `Sampling`, by its settings, or by a temperature, but not by two of them."""
    sampling = Sampling(temperature=0.9, top_k=5)
    settings = {"temperature": 0.9, "top_k": 5}
    wanted = generator.generate("the", 20, seed=1, **settings)
    assert generator.generate("the", 20, sampling, seed=1) == wanted
    assert generator.generate("the", 20, 0.9, top_k=5, seed=1) == wanted
    assert "".join(generator.stream("the", 20, sampling, seed=1)) == wanted
    assert "".join(step.text for step in generator.steps("the", 20, sampling, seed=1)) == wanted
    with pytest.raises(TypeError, match="top_k: belongs into the Sampling"):
        generator.generate("the", 20, sampling, top_k=5)
    with pytest.raises(TypeError, match="sampling must be a Sampling or a function, not 'greedy'"):
        generator.generate("the", 20, "greedy")
    with pytest.raises(TypeError, match="topk"):
        generator.steps("the", 20, topk=5)


def test_a_sampler_of_your_own(generator):
    """It gets the logits of allowed tokens, the text so far, and the sequence's generator."""

    def greedy(logits, tokens, rng):
        return int(logits.argmax())

    def draw(logits, tokens, rng):
        weights = np.exp((logits - logits.max()) / np.float32(0.7)).cumsum(dtype=np.float64)
        return weights.searchsorted(rng.random() * weights[-1], side="right")

    prompts = [TEXT[i : i + 3 + i] for i in range(7)]
    assert generator.generate(prompts, 30, greedy) == generator.generate(prompts, 30, 0)
    drawn = generator.generate(prompts, 30, draw, seed=4)
    assert drawn == generator.generate(prompts, 30, seed=4)
    assert "".join(generator.stream(prompts[0], 30, draw, seed=4)) == drawn[0]
    seen = []

    def repeat(logits, tokens, rng):
        seen.append(len(tokens))
        logits[tokens[-1]] = np.inf  # it may change them
        return tokens[-1]

    start = generator.tokenizer.encode("the")
    result = generator.generate(start, 4, repeat, return_logprobs=True, allow_all_tokens=True)
    assert result.tokens == [start[-1]] * 4
    assert seen == [len(start) + n for n in range(4)]


def test_a_sampler_of_your_own_may_not_choose_what_is_no_text(generator):
    for wrong in (-1, generator.tokenizer.vocab_size, 0x80):
        with pytest.raises(ValueError, match=f"chose token {wrong}, which may not come here"):
            generator.generate("the", 3, lambda logits, tokens, rng, wrong=wrong: wrong)


def test_filters_that_leave_everything_or_one_token(generator):
    plain = generator.generate("the", 40, seed=1)
    assert generator.generate("the", 40, seed=1, top_k=10**9) == plain
    assert generator.generate("the", 40, seed=1, top_p=1) == plain
    assert generator.generate("the", 40, seed=1, min_p=0) == plain
    greedy = generator.generate("the", 40, temperature=0)
    assert generator.generate("the", 40, seed=1, top_k=1) == greedy
    assert generator.generate("the", 40, seed=1, top_p=0) == greedy
    assert generator.generate("the", 40, seed=1, min_p=1) == greedy


def test_characters_never_seen():
    """Bytes represent any text. A vocabulary of characters does not; the error names one."""
    assert tiny_generator().generate("日本語 ∑", 5, seed=0)
    tokenizer = CharTokenizer.train(TEXT)
    generator = Generator(tiny_model(tokenizer.vocab_size), tokenizer)
    assert len(generator.generate("the", 5, seed=0)) == 5
    with pytest.raises(ValueError, match="character 'Q' at position 4"):
        generator.generate("the Queen", 5)


@pytest.mark.parametrize("stride", [0, 1, 5])
def test_score_adds_up_what_each_token_costs(generator, stride):
    """Compared with a sum over windows, token by token."""
    text = TEXT[:60]
    ids = generator.tokenizer.encode(text)
    context, nats, done = generator.model.config.max_seq_len - 1, 0.0, 1
    while done < len(ids):
        first_window = done == 1
        step = min(context if first_window else (stride or context), len(ids) - done)
        end = done + step
        start = max(0, end - 1 - context) if stride else done - 1
        logits = generator.model(np.array([ids[start : end - 1]])).numpy()[0]
        logprobs = log_probabilities(logits)
        for place in range(done, end):
            nats -= logprobs[place - 1 - start, ids[place]]
        done = end
    score = generator.score(text, stride=stride, batch_size=3)
    assert score.nats == pytest.approx(nats, rel=1e-5)
    assert (score.tokens, score.characters) == (len(ids) - 1, 60)
    assert score.nats_per_character == pytest.approx(nats / 60, rel=1e-5)
    assert score.bits_per_token == pytest.approx(nats / (len(ids) - 1) / np.log(2), rel=1e-5)
    assert score.bits_per_character == pytest.approx(nats / 60 / np.log(2), rel=1e-5)


def test_a_text_too_short_to_score(generator):
    with pytest.raises(ValueError, match="nothing to predict"):
        generator.score("a")
