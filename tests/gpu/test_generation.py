"""`--device gpu` in generation, on the stand-in for CuPy: the texts equal those of the CPU."""

import base64
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minigrad
from minigrad import device
from minigrad.errors import KernelFallbackWarning
from minigrad.optim import SGD
from tests.benchmarks import generate_gpu
from tests.tinyalpaca.runs import train, write_text
from tests.tinyalpaca.test_generation import MODELS, SAMPLING
from tests.tinyalpaca.tiny_models import LLAMA, TEXT, tiny_generator
from tinyalpaca import cli
from tinyalpaca.generation import Generator
from tinyalpaca.runs import save_model

PROMPTS = ["the", "the cat sat on the mat, the hat", "é", "🦙 that"]


def on_gpu(graph: bool = True, **options: Any) -> Generator:
    """The tiny generator with the same options, moved to the GPU."""
    generator = tiny_generator(**options)
    return Generator(generator.model.to("gpu"), generator.tokenizer, graph=graph)


@pytest.mark.parametrize("sampling", SAMPLING[1:])
@pytest.mark.parametrize("options", MODELS[:-1])
def test_texts_are_the_cpus(gpu: Any, options: dict[str, Any], sampling: dict[str, Any]) -> None:
    """With the same seed, in a batch of prompts of any lengths, beyond the context length (11)."""
    wanted = tiny_generator(**options).generate(
        PROMPTS, 20, seed=5, return_logprobs=True, **sampling
    )
    found = on_gpu(**options).generate(PROMPTS, 20, seed=5, return_logprobs=True, **sampling)
    for ours, theirs in zip(found, wanted, strict=True):
        assert len(ours.tokens) == 20
        assert (ours.tokens, ours.text) == (theirs.tokens, theirs.text)
        np.testing.assert_allclose(ours.logprobs, theirs.logprobs, atol=2e-5)
    assert gpu.counts["graph launches"] > 5


@pytest.mark.parametrize("graph", [True, False])
def test_a_long_text_alone_and_as_a_stream(gpu: Any, graph: bool) -> None:
    setting = {"temperature": 1.0, "seed": 9}
    wanted = tiny_generator().generate("the cat", 60, **setting)
    assert on_gpu(graph).generate("the cat", 60, **setting) == wanted
    assert "".join(on_gpu(graph).stream("the cat", 60, **setting)) == wanted
    assert bool(gpu.counts["graph launches"]) == graph


def test_a_context_longer_than_what_is_drawn_in_a_row(gpu: Any) -> None:
    """With stop strings, which end sequences among tokens drawn in a row, and without."""
    options = {"max_seq_len": 70, "pre_norm": True}
    for stop in ([], ["t", "zz"]):
        setting = {"temperature": 1.2, "seed": range(4), "stop": stop}
        wanted = tiny_generator(**options).generate(PROMPTS, 60, **setting)
        generator = on_gpu(**options)
        generator.prepare()
        before = gpu.counts["d2h"]
        assert generator.generate(PROMPTS, 60, **setting) == wanted
        assert gpu.counts["d2h"] - before < 30


def test_a_stop_string_within_a_row_of_tokens(gpu: Any) -> None:
    """The tokens end with the one that completes the stop string, as on the CPU."""
    whole = tiny_generator(max_seq_len=40).generate("the", 30, seed=2)
    setting = {"seed": 2, "stop": whole[12:14]}
    wanted = tiny_generator(max_seq_len=40).generate("the", 30, return_logprobs=True, **setting)
    generator = on_gpu(max_seq_len=40)
    assert generator.generate("the", 30, **setting) == wanted.text
    assert "".join(generator.stream("the", 30, **setting)) == wanted.text
    assert generator.generate("the", 30, return_logprobs=True, **setting).tokens == wanted.tokens


@pytest.mark.slow
@pytest.mark.parametrize("sampling", [{}, {"temperature": 0}, {"top_k": 9}])
def test_only_readable_text_of_seen_tokens(gpu: Any, sampling: dict[str, Any]) -> None:
    """Drawn on the device or the host, for any length; and with `allow_all_tokens` all tokens."""
    here, there = tiny_generator(), on_gpu()
    seen = np.zeros(here.tokenizer.vocab_size, bool)
    seen[here.tokenizer.encode(TEXT + "ß€🦙 ab")] = True
    for model in (here.model, there.model):
        model.seen_tokens = seen
    prompts = ["the", "é", "🦙 that"] * 2
    for length in (1, 2, 3, 4, 30):
        setting = {"seed": range(6), "return_logprobs": True, **sampling}
        found = there.generate(prompts, length, **setting)
        for ours, theirs in zip(found, here.generate(prompts, length, **setting), strict=True):
            assert (ours.tokens, ours.text) == (theirs.tokens, theirs.text)
            assert there.tokenizer.decode_bytes(ours.tokens).decode("utf-8") == ours.text
            assert seen[ours.tokens].all()
    assert gpu.counts["draw_tokens"] > 0 or "top_k" in sampling
    free = there.generate(prompts, 30, allow_all_tokens=True, **setting)
    assert free == there.generate(prompts, 30, allow_all_tokens=True, **setting)
    assert not all(seen[one.tokens].all() for one in free)
    assert there.generate(prompts, 30, **setting) == found


def test_a_model_of_the_llama_family_runs_itself_with_a_cache(gpu: Any) -> None:
    """Decoding kernels do not support it; warnings say so, and name the ops without a kernel."""
    wanted = tiny_generator(**LLAMA).generate(PROMPTS, 20, seed=5, return_logprobs=True)
    with pytest.warns(KernelFallbackWarning) as found:
        texts = on_gpu(**LLAMA).generate(PROMPTS, 20, seed=5, return_logprobs=True)
    assert [one.tokens for one in texts] == [one.tokens for one in wanted]
    said = sorted(str(warning.message) for warning in found)
    assert len(said) == 2 and said[1].startswith("swiglu: the textbook runs on the gpu")
    assert said[0].startswith("generation launches the model's own kernels one by one")
    assert "num_kv_heads = 2, head_size = 10, activation = 'swiglu'" in said[0]


def test_float64(gpu: Any) -> None:
    generator = on_gpu(pre_norm=True, positions="rotary")
    generator.model.astype(np.float64)
    wanted = tiny_generator(pre_norm=True, positions="rotary")
    wanted.model.astype(np.float64)
    assert generator.generate("the", 20, seed=1) == wanted.generate("the", 20, seed=1)


def test_the_textbook_is_the_specification_there_too(gpu: Any) -> None:
    generator = on_gpu()
    with minigrad.textbook():
        wanted = generator.generate("the cat sat", 6, seed=1)
    assert gpu.counts["decode_attend"] == 0 and gpu.counts["matmul"] > 0
    assert generator.generate("the cat sat", 6, seed=1) == wanted


def test_stop_strings_samples_and_seeds(gpu: Any) -> None:
    """Sequences end at different lengths and are removed from the batch."""
    prompts = [TEXT[i : i + 3 + i] for i in range(5)]
    options = {"temperature": 1.0, "num_samples": 2, "stop": ["at", "zz"], "seed": range(5)}
    assert on_gpu().generate(prompts, 20, **options) == tiny_generator().generate(
        prompts, 20, **options
    )


def test_64_prompts_some_longer_than_the_context(gpu: Any) -> None:
    prompts = [TEXT[: 1 + i % 50] for i in range(64)]
    wanted = tiny_generator().generate(prompts, 3, seed=range(64))
    assert on_gpu().generate(prompts, 3, seed=range(64)) == wanted


def test_steps_tell_what_might_have_been(gpu: Any) -> None:
    wanted = list(tiny_generator().steps("the", 12, seed=2, alternatives=4))
    found = list(on_gpu().steps("the", 12, seed=2, alternatives=4))
    for ours, theirs in zip(found, wanted, strict=True):
        assert (ours.token, ours.text) == (theirs.token, theirs.text)
        assert [token for token, _ in ours.alternatives] == [t for t, _ in theirs.alternatives]


def test_two_streams_of_one_generator(gpu: Any) -> None:
    generator, alone = on_gpu(), tiny_generator()
    prompts = ("the cat", "a mat")
    streams = [generator.stream(prompt, 25, seed=i) for i, prompt in enumerate(prompts)]
    pieces: list[list[str]] = [[], []]
    while streams:
        for stream, text in zip(streams, pieces, strict=True):
            text.append(next(stream, ""))
        if not any(text[-1] for text in pieces):
            break
    for i, prompt in enumerate(prompts):
        assert "".join(pieces[i]) == alone.generate(prompt, 25, seed=i)


def test_one_graph_for_all_texts_of_a_shape(gpu: Any) -> None:
    generator = on_gpu()
    generator.generate("the", 15, seed=0)
    assert gpu.counts["graph launches"] > 0
    before = gpu.counts.copy()
    generator.generate("the cat", 5, seed=0)
    assert gpu.counts["graph launches"] - before["graph launches"] == 5
    assert gpu.counts["waits"] == before["waits"]  # nothing was captured


@pytest.mark.slow
def test_a_model_that_is_trained_on_is_seen_at_once(gpu: Any) -> None:
    generator = on_gpu()
    before = generator.generate("the", 15, temperature=0)
    device = generator.model.final_linear.weight.device
    ids, targets = (device.asarray(np.array([ids])) for ids in ([1, 2, 3], [4, 5, 6]))
    generator.model.loss(ids, targets).backward()
    SGD(generator.model.parameters(), lr=5.0).step()
    with minigrad.textbook():
        wanted = generator.generate("the", 15, temperature=0)
    assert generator.generate("the", 15, temperature=0) == wanted != before


def test_scores(gpu: Any) -> None:
    for stride in (0, 5):
        wanted = tiny_generator().score(TEXT, stride=stride)
        found = on_gpu().score(TEXT, stride=stride)
        assert found.nats == pytest.approx(wanted.nats, rel=1e-5)
        assert found.tokens == wanted.tokens


def test_what_the_kernels_do_not_take_is_announced(gpu: Any) -> None:
    generator = on_gpu()
    generator.model.astype(np.float16)
    with pytest.warns(KernelFallbackWarning, match="generation runs the whole model.*not in floa"):
        generator.prepare()
    assert gpu.counts["decode_attend"] == 0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = tiny_generator()
    save_model(tmp_path, generator.model, generator.tokenizer)
    return tmp_path


def command(capsys: Any, name: str, folder: Path, *flags: Any) -> tuple[int, str, str]:
    """Run a command; returns its status, standard output and standard error."""
    status = cli.main([name, "--checkpoint", str(folder), *map(str, flags)])
    return status, *capsys.readouterr()


TEXT_FLAGS = ("--prompt", "the cat", "--max-new-tokens", 12, "--seed", 3)


@pytest.mark.parametrize("extra", [(), ("--no-graph",)])
def test_the_command(gpu: Any, capsys: Any, folder: Path, extra: tuple[str, ...]) -> None:
    status, out, err = command(capsys, "generate", folder, "--device", "gpu", *TEXT_FLAGS, *extra)
    wanted = tiny_generator().generate("the cat", 12, seed=3)
    assert (status, out) == (0, f"the cat{wanted}\n")
    assert re.fullmatch(r"12 tokens in [\d.]+ s: [\d,]+ tokens/s\n", err)
    assert bool(gpu.counts["graph launches"]) == (not extra)


def test_what_else_the_command_shows(gpu: Any, capsys: Any, folder: Path) -> None:
    """A list of alternatives, several samples as JSON, and the page with attention."""

    def run(device: str) -> tuple[str, list[Any], Any]:
        flags = ("--device", device, *TEXT_FLAGS)
        _, listed, _ = command(capsys, "generate", folder, *flags, "--show-alternatives")
        more = ("--json", "--num-samples", 2, "--show-alternatives")
        _, out, _ = command(capsys, "generate", folder, *flags, *more)
        page = folder / f"{device}.html"
        status, _, _ = command(capsys, "generate", folder, *flags, "--html", page)
        assert status == 0
        [data] = re.findall(r'json">(.*?)</script>', page.read_text(encoding="utf-8"))
        return listed, json.loads(out)["samples"], json.loads(data)

    (listed, samples, page), (cpu_listed, cpu_samples, cpu_page) = run("gpu"), run("cpu")
    assert listed == cpu_listed
    assert [s["tokens"] for s in samples] == [s["tokens"] for s in cpu_samples]
    for ours, theirs in zip(samples, cpu_samples, strict=True):
        for places in zip(ours["alternatives"], theirs["alternatives"], strict=True):
            names, wanted = ([(a["token"], a["text"]) for a in place] for place in places)
            assert names == wanted
            found, wanted = ([a["probability"] for a in place] for place in places)
            np.testing.assert_allclose(found, wanted, rtol=1e-4)
    looked, cpu_looked = (
        np.frombuffer(base64.b64decode(p.pop("attention")), np.uint8).astype(int)
        for p in (page, cpu_page)
    )
    assert np.abs(looked - cpu_looked).max() <= 1  # of 255
    for ours, theirs in zip(page.pop("tokens"), cpu_page.pop("tokens"), strict=True):
        if "bits" in ours:
            assert ours.pop("bits") == pytest.approx(theirs.pop("bits"), abs=2e-3)
            best, cpu_best = ours.pop("best"), theirs.pop("best")
            assert [(b[0], b[2]) for b in best] == [(b[0], b[2]) for b in cpu_best]
            found, wanted = ([b[1] for b in some] for some in (best, cpu_best))
            np.testing.assert_allclose(found, wanted, atol=2e-4)
        assert ours == theirs
    assert page == cpu_page


def test_evaluate(gpu: Any, capsys: Any, folder: Path) -> None:
    flags = ("--text", TEXT, "--json")
    figures = [
        json.loads(command(capsys, "evaluate", folder, "--device", device, *flags)[1])
        for device in ("cpu", "gpu")
    ]
    assert figures[1]["nats"] == pytest.approx(figures[0]["nats"], rel=1e-5)


def test_checkpoints_go_from_device_to_device(gpu: Any, tmp_path: Path) -> None:
    text = write_text(tmp_path)
    for trained in ("cpu", "gpu"):
        folder = tmp_path / trained
        train(folder, text, device=trained, epochs=1, epoch_sample_tokens=6)
        texts = [
            Generator.from_checkpoint(folder, device).generate("the ", 12, seed=4)
            for device in ("cpu", "gpu")
        ]
        assert texts[0] == texts[1]


def test_a_run_on_the_gpu_writes_samples(gpu: Any, tmp_path: Path) -> None:
    """After each epoch the samples come from the changed weights."""
    run = train(tmp_path / "run", write_text(tmp_path), device="gpu", epoch_sample_tokens=12)
    samples = [record["sample"] for record in run.records]
    assert len(samples) == 2 and all(len(sample) > len("the ") for sample in samples)
    last = Generator(run.model.eval(), run.tokenizer).generate("the ", 12, seed=run.config.seed)
    assert samples[1] == "the " + last
    assert gpu.counts["decode_attend"] > 0


@pytest.mark.slow
def test_all_ways_can_be_timed(gpu: Any, capsys: Any, tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    flags = ["--batches", "1", "2", "--tokens", "2", "--rounds", "1", "--json", str(file)]
    assert generate_gpu.main(flags) == 0
    rates = json.loads(file.read_text(encoding="utf-8"))["tokens_per_s"]
    assert list(rates) == ["a stream", "1 texts", "2 texts"]
    assert all(rate > 0 for workload in rates.values() for rate in workload.values())
    assert gpu.counts["decode_attend"] > 0
    assert capsys.readouterr().out.startswith("tokens/s")


@pytest.mark.stand_in
def test_asking_for_a_gpu_that_is_not_there(
    gpu: Any, capsys: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu.cuda.runtime, "getDeviceCount", lambda: 0)
    device.cupy.cache_clear()
    for name in ("generate", "evaluate"):
        status, out, err = command(capsys, name, folder, "--device", "gpu")
        assert (status, out) == (1, "")
        assert "there is no GPU" in err and '"cpu"' in err


def test_asking_for_a_gpu_without_cupy(
    capsys: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    device.cupy.cache_clear()
    status, out, err = command(capsys, "generate", folder, "--device", "gpu")
    device.cupy.cache_clear()
    assert (status, out) == (1, "")
    assert "needs CuPy" in err and "pip install" in err
