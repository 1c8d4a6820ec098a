"""Generation's logits on the stand-in for CuPy equal those of the whole model on the CPU."""

import gc
import itertools
import weakref
from typing import Any

import numpy as np
import pytest

from minigrad.device import Device
from minigrad.errors import CaptureWarning
from tests.tinyalpaca.test_inference import CHOICES, OPTIONS, compare
from tests.tinyalpaca.tiny_models import tiny_model
from tinyalpaca.generation import token_step
from tinyalpaca.generation.device_inference import DeviceInference
from tinyalpaca.generation.folded_weights import fold
from tinyalpaca.generation.sampling import Sampler, Sampling
from tinyalpaca.generation.uncached import UncachedDecoder
from tinyalpaca.generation.writing import next_tokens

GPU = Device("gpu")
COVERING = OPTIONS[::11]
LAYERS = 2
LAUNCHES = 5 * LAYERS + 2  # for a token; drawing is one more
PREFILL_LAUNCHES = 6 * (LAYERS - 1) + 3  # the last layer ends when its keys and values are cached


@pytest.fixture(autouse=True)
def early_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Capture a graph after few tokens, so that most of a test's tokens are replays."""
    monkeypatch.setattr(token_step, "WARM_UP", 3)


def inference_of(model: Any, vocab_size: int = 30, graph: bool = True) -> DeviceInference:
    return DeviceInference(fold(model, vocab_size), GPU, graph)


def test_every_pair_of_options_is_among_the_models() -> None:
    def pairs(options: dict[str, Any]) -> set[Any]:
        return set(itertools.combinations(options.items(), 2))

    every = set.union(*map(pairs, OPTIONS))
    assert set.union(*map(pairs, COVERING)) == every
    assert len(every) > 2 ** len(CHOICES) // 2


@pytest.mark.parametrize("options", COVERING, ids=lambda o: "-".join(map(str, o.values())))
def test_logits_are_the_models(gpu: Any, options: dict[str, Any], rng: Any) -> None:
    """Prompts are shorter and longer than the context (11); texts exceed it more than once."""
    model = tiny_model(**options)
    sequences = [rng.integers(0, 27, n).tolist() for n in (3, 14)]
    inference = inference_of(model, 27)
    uncached = UncachedDecoder(model, 27, sequences)
    compare(inference.decoder(sequences, 40), uncached, sequences, 15, 1e-5)
    assert inference._step.forward.graph is not None
    assert gpu.counts["matmul"] == 0


@pytest.mark.parametrize("lengths", [(1,), (30,), (12, 11, 1, 40), (6,) * 9])
def test_prompts_of_any_lengths(gpu: Any, lengths: tuple[int, ...], rng: Any) -> None:
    model = tiny_model()
    sequences = [rng.integers(0, 30, n).tolist() for n in lengths]
    uncached = UncachedDecoder(model, 30, sequences)
    compare(inference_of(model).decoder(sequences, 60), uncached, sequences, 14, 1e-5)


@pytest.mark.parametrize("context", [1, 2, 3])
@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_the_shortest_contexts(gpu: Any, context: int, positions: str) -> None:
    model = tiny_model(max_seq_len=context, positions=positions)
    sequences = [[3], [5, 1, 2, 3, 4]]
    uncached = UncachedDecoder(model, 30, sequences)
    compare(inference_of(model).decoder(sequences, 20), uncached, sequences, 8, 1e-5)


@pytest.mark.parametrize("options", [{}, {"pre_norm": True, "positions": "rotary"}])
def test_float64(gpu: Any, options: dict[str, Any]) -> None:
    model = tiny_model(**options).astype(np.float64)
    sequences = [[1, 2, 3], [4]]
    uncached = UncachedDecoder(model, 30, sequences)
    decoder = inference_of(model).decoder(sequences, 20)
    assert decoder.next_logits().dtype == np.float64
    compare(decoder, uncached, sequences, 12, 1e-13)


def test_a_sequence_that_leaves_does_not_disturb_the_others(gpu: Any, rng: Any) -> None:
    model = tiny_model()
    sequences = [rng.integers(0, 30, n).tolist() for n in (3, 9, 5, 12)]
    decoder = inference_of(model).decoder(sequences, 60)
    uncached = UncachedDecoder(model, 30, sequences)
    left = list(sequences)
    for row in (1, 2, 0):
        compare(decoder, uncached, left, 3, 1e-5)
        decoder.remove(row)
        uncached.remove(row)
        left[row] = left[-1]
        del left[-1]
    compare(decoder, uncached, left, 12, 1e-5)


def test_a_long_prompt_is_computed_in_parts(
    gpu: Any, rng: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_step, "PREFILL_SCORES", 3 * 11 * 4)  # four rows at a time
    model = tiny_model()
    sequences = [rng.integers(0, 30, n).tolist() for n in (11, 7)]
    uncached = UncachedDecoder(model, 30, sequences)
    compare(inference_of(model).decoder(sequences, 60), uncached, sequences, 1, 1e-5)
    assert gpu.counts["decode_append"] == LAYERS * 4  # 10 and 6 positions


def delta(gpu: Any, work: Any) -> dict[str, int]:
    """By how much `work` increases each of the stand-in's counters."""
    before = gpu.counts.copy()
    work()
    kinds = ("launches", "graph launches", "h2d", "d2h", "waits")
    return {kind: n for kind in kinds if (n := gpu.counts[kind] - before[kind])}


@pytest.mark.parametrize("count", [1, 9])
def test_the_budget_of_a_token_chosen_by_the_host(gpu: Any, count: int) -> None:
    """A token is one graph launch and one copy in each direction; a graph has LAUNCHES kernels."""
    for graph in (True, False):
        sequences = [[1, 2, 3] for _ in range(count)]
        decoder = inference_of(tiny_model(num_layers=LAYERS), graph=graph).decoder(sequences, 40)

        def token(decoder: Any = decoder, sequences: Any = sequences) -> None:
            decoder.next_logits()
            for tokens in sequences:
                tokens.append(4)

        first = {"launches": PREFILL_LAUNCHES + LAUNCHES, "h2d": 2, "d2h": 1}
        assert delta(gpu, token) == first
        for _ in range(4):
            token()
        replay, eager = {"graph launches": 1}, {"launches": LAUNCHES}
        assert delta(gpu, token) == {"h2d": 1, "d2h": 1, **(replay if graph else eager)}
        assert len(sequences[0]) == 9
        token(), token(), token()
        slid = delta(gpu, token)  # the context of 11 is full
        assert slid["h2d"] == 2
        assert slid.get("launches", 0) == PREFILL_LAUNCHES + (0 if graph else LAUNCHES)


def sampler_of(count: int, temperature: float = 1.0) -> Sampler:
    rngs = [np.random.default_rng(i) for i in range(count)]
    return Sampler(Sampling(temperature), rngs, 30, [[]] * count)


@pytest.mark.parametrize("count", [1, 9])
@pytest.mark.parametrize("graph", [True, False])
def test_the_budget_of_tokens_drawn_on_the_device(gpu: Any, count: int, graph: bool) -> None:
    """One graph launch per token; one copy back for many tokens; random numbers for 32 at once."""
    sequences = [[1, 2, 3] for _ in range(count)]
    model = tiny_model(num_layers=LAYERS, max_seq_len=100)
    decoder, sampler = inference_of(model, graph=graph).decoder(sequences, 100), sampler_of(count)

    def tokens(most: int) -> None:
        rounds, logits = decoder.next_tokens(sampler, most)
        assert len(rounds) == most and logits is None
        for sequence, new in zip(sequences, zip(*rounds, strict=True), strict=True):
            sequence.extend(new)

    first = {"launches": PREFILL_LAUNCHES + LAUNCHES + 1, "h2d": 3, "d2h": 1}
    assert delta(gpu, lambda: tokens(1)) == first
    tokens(8)
    for most in (1, 20):
        these = {"graph launches": most} if graph else {"launches": (LAUNCHES + 1) * most}
        assert delta(gpu, lambda: tokens(most)) == {"d2h": 1, **these}  # noqa: B023
    assert delta(gpu, lambda: tokens(2))["d2h"] == 1
    assert delta(gpu, lambda: tokens(2))["h2d"] == 1  # new random numbers after 32


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("context", [11, 50])
def test_tokens_drawn_there_are_the_samplers(
    gpu: Any, rng: Any, temperature: float, context: int
) -> None:
    """Tokens in a row end where a window or the random numbers end. A sequence is removed too."""
    model = tiny_model(max_seq_len=context)
    prompts = [rng.integers(0, 30, n).tolist() for n in (3, 9, 14)]

    def write(decoder: Any, sequences: list[list[int]]) -> list[list[int]]:
        sampler, left = sampler_of(3, temperature), list(sequences)
        for length in (45, 60):
            while (missing := length - len(left[0])) > 0:
                rounds, _ = next_tokens(decoder, sampler, missing, False)
                for sequence, new in zip(left, zip(*rounds, strict=True), strict=True):
                    sequence.extend(new)
            decoder.remove(0)
            sampler.remove(0)
            left = [left[-1], *left[1:-1]]
        return sequences

    here, there = ([list(prompt) for prompt in prompts] for _ in range(2))
    wanted = write(UncachedDecoder(model, 30, here), here)
    assert write(inference_of(model).decoder(there, 200), there) == wanted
    assert list(map(len, wanted)) == [45, 55, 60]
    assert gpu.counts["d2h"] < 35


def test_logits_come_with_a_token_if_they_are_wanted(gpu: Any) -> None:
    model, sequences = tiny_model(), [[1, 2, 3], [4]]
    decoder, uncached = (
        inference_of(model).decoder(sequences, 40),
        UncachedDecoder(model, 30, sequences),
    )
    for _ in range(12):
        wanted = uncached.next_logits()
        rounds, logits = decoder.next_tokens(sampler_of(2, 0.0), 5, with_logits=True)
        np.testing.assert_allclose(logits, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
        assert rounds == [wanted.argmax(axis=-1).tolist()]
        for sequence, token in zip(sequences, rounds[0], strict=True):
            sequence.append(token)


def test_damaged_weights_are_an_error(gpu: Any) -> None:
    model = tiny_model()
    model.final_linear.bias.assign(np.full(30, np.nan, np.float32))
    decoder = inference_of(model).decoder([[1, 2]], 40)
    for temperature in (0.0, 1.0):
        with pytest.raises(ValueError, match="logits are not finite numbers"):
            decoder.next_tokens(sampler_of(1, temperature), 3)


def test_a_replay_gives_the_bits_of_a_run_of_its_kernels(gpu: Any) -> None:
    def run(graph: bool) -> list[bytes]:
        sequences = [[1, 2, 3], [4]]
        decoder = inference_of(tiny_model(), graph=graph).decoder(sequences, 40)
        logits = []
        for step in range(14):
            logits.append(decoder.next_logits().tobytes())
            for tokens in sequences:
                tokens.append(step)
        return logits

    assert run(True) == run(False)
    assert gpu.counts["graph launches"] > 8


def test_a_capture_that_fails_is_announced(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(stream: Any) -> None:
        raise RuntimeError("this driver captures nothing")

    monkeypatch.setattr(type(gpu.cuda.Stream()), "begin_capture", refuse)
    model, sequences = tiny_model(), [[1, 2, 3]]
    decoder, uncached = (
        inference_of(model).decoder(sequences, 40),
        UncachedDecoder(model, 30, sequences),
    )
    with pytest.warns(CaptureWarning, match="the token step runs kernel by kernel.*captures noth"):
        compare(decoder, uncached, sequences, 9, 1e-5)
    assert gpu.counts["graph launches"] == 0


def test_cache_and_graph_serve_the_next_text_and_not_two_at_once(gpu: Any) -> None:
    model = tiny_model()
    inference = inference_of(model)

    def start() -> Any:
        sequences = [[1, 2, 3]]
        return sequences, inference.decoder(sequences, 9), UncachedDecoder(model, 30, sequences)

    sequences, decoder, uncached = start()
    compare(decoder, uncached, sequences, 6, 1e-5)
    step = decoder.step
    del decoder
    captures = gpu.counts["waits"]
    first, second = start(), start()
    assert first[1].step is step and second[1].step is not step
    for sequences, decoder, uncached in (first, second, first, second):
        compare(decoder, uncached, sequences, 1, 1e-5)
    assert gpu.counts["waits"] == captures
    del first, sequences, decoder
    longer = inference.decoder([[1]], 11)
    assert longer.step is not step and longer.step.room == 11


def test_memory_is_given_back_at_once(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory does not wait for Python's cycle collector, because a cache can fill most of a GPU."""
    monkeypatch.setattr(gc, "isenabled", lambda: False)  # a capture switches it on again
    gc.disable()
    try:
        inference, sequences = inference_of(tiny_model()), [[1, 2, 3]]
        decoder = inference.decoder(sequences, 11)
        for _ in range(7):
            sequences[0].append(int(decoder.next_logits().argmax()))
        assert decoder.step.forward.graph is not None
        memory = weakref.ref(decoder.step.token)
        del decoder, inference
        assert memory() is None
    finally:
        gc.enable()


def test_rows_of_nobody_are_left_alone(gpu: Any) -> None:
    """A step writes nothing to the cache for unused slots."""
    inference = inference_of(tiny_model())
    inference.prepare()
    step = inference._step
    assert step.slots == 1 and step.idle
    for layer in step.token.cache:
        layer.keys.fill(7)
        layer.values.fill(7)
    step.draw(2)
    step.logits_of_next()
    for layer in step.token.cache:
        assert (layer.keys.get() == 7).all() and (layer.values.get() == 7).all()
