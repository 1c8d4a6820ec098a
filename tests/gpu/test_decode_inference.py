"""Generation's logits on the stand-in for CuPy are those of the whole model on the CPU."""

import itertools
from typing import Any

import numpy as np
import pytest

from minigrad.device import Device
from minigrad.errors import CaptureWarning
from tests.tinyalpaca.test_inference import CHOICES, OPTIONS, compare
from tests.tinyalpaca.tiny_models import tiny_model
from tinyalpaca.generating import device_inference
from tinyalpaca.generating.device_inference import DeviceInference
from tinyalpaca.generating.folded_weights import fold
from tinyalpaca.generating.uncached import UncachedDecoder

GPU = Device("gpu")
COVERING = OPTIONS[::11]
LAYERS = 2
LAUNCHES = 5 * LAYERS + 2  # of a token
PREFILL_LAUNCHES = 6 * (LAYERS - 1) + 3  # the last layer ends when its keys and values are kept
COPIES = {"h2d": 1, "d2h": 1}  # of a token


@pytest.fixture(autouse=True)
def early_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few tokens before a graph is captured, so that most of a test's tokens are replays."""
    monkeypatch.setattr(device_inference, "WARM_UP", 3)


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
    """Prompts shorter and longer than the context (11), past its end more than once."""
    model = tiny_model(**options)
    sequences = [rng.integers(0, 27, n).tolist() for n in (3, 14)]
    inference = inference_of(model, 27)
    uncached = UncachedDecoder(model, 27, sequences)
    compare(inference.decoder(sequences, 40), uncached, sequences, 15, 1e-5)
    assert inference._step.captured.graph is not None
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
    monkeypatch.setattr(device_inference, "PREFILL_SCORES", 3 * 11 * 4)  # four rows at a time
    model = tiny_model()
    sequences = [rng.integers(0, 30, n).tolist() for n in (11, 7)]
    uncached = UncachedDecoder(model, 30, sequences)
    compare(inference_of(model).decoder(sequences, 60), uncached, sequences, 1, 1e-5)
    assert gpu.counts["decode_append"] == LAYERS * 4  # 10 and 6 positions


def delta(gpu: Any, work: Any) -> dict[str, int]:
    """What `work` adds to the stand-in's counters, by kind."""
    before = gpu.counts.copy()
    work()
    kinds = ("launches", "graph launches", "h2d", "d2h", "waits")
    return {kind: n for kind in kinds if (n := gpu.counts[kind] - before[kind])}


@pytest.mark.parametrize("count", [1, 9])
def test_the_budget_of_a_token(gpu: Any, count: int) -> None:
    """One graph launch and a copy each way; and what that stands for."""
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
        assert delta(gpu, token) == {**COPIES, **(replay if graph else eager)}
        assert len(sequences[0]) == 9
        token(), token(), token()
        slid = delta(gpu, token)  # the context of 11 is full
        assert slid["h2d"] == 2
        assert slid.get("launches", 0) == PREFILL_LAUNCHES + (0 if graph else LAUNCHES)


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


def test_rows_of_nobody_are_left_alone(gpu: Any) -> None:
    """A step of slots that no sequence has writes nothing to the cache."""
    inference = inference_of(tiny_model())
    inference.prepare()
    step = inference._step
    assert step.slots == 1 and step.idle
    for layer in step.cache:
        assert np.isnan(layer.keys.get()).all() and np.isnan(layer.values.get()).all()
