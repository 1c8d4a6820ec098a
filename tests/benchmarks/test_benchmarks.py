"""The benchmarks run, write the records that they document, and check that both sides agree."""

import dataclasses
import importlib.util
import json
import os
import re
import sys
from pathlib import Path

import pytest

from tests.benchmarks import (
    chart,
    end_to_end,
    generate,
    generate_large,
    huge_models,
    scaling,
    tokenizer,
    train_step,
)
from tests.benchmarks.contest import Contender, Contest, figures, require, require_equal
from tests.benchmarks.workloads import WORKLOADS, Workload

FOLDER = Path(__file__).parent
TINY = Workload(batch=3, time=5, d_model=8, d_ff=16, layers=1, heads=2, vocabulary=11)
FIGURES = {"workload", "ours_ms", "ours_mb"}
BESIDE_A_PEER = FIGURES | {"peer_ms", "peer_mb", "ratio"}

measures_memory = pytest.mark.skipif(
    importlib.util.find_spec("psutil") is None,
    reason="psutil is not installed: it comes with the extra bench",
)


class Clock:
    """A contender whose calls take a given time."""

    def __init__(self, megabytes: int = 0) -> None:
        self.memory = bytearray(megabytes * 2**20)
        self.memory[:: 2**12] = b"1" * len(self.memory[:: 2**12])

    def step(self) -> None:
        for _ in range(20_000):
            pass

    def fail(self) -> None:
        raise ValueError("no such step")

    def die(self) -> None:
        os._exit(3)


def contender(name, **options):
    return Contender(name, f"{__name__}:Clock", options)


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(WORKLOADS, "seed", TINY)


@measures_memory
def test_contenders_take_turns_in_processes_of_their_own():
    with Contest([contender("small"), contender("large", megabytes=40)]) as contest:
        times = contest.times("step", rounds=2, turn=3)
        peaks = contest.peak_mb("step", calls=50)
    assert {name: len(seconds) for name, seconds in times.items()} == {"small": 6, "large": 6}
    assert all(second > 0 for seconds in times.values() for second in seconds)
    assert 30 < peaks["large"] - peaks["small"] < 60


@pytest.mark.parametrize(("method", "message"), [("fail", "no such step"), ("die", "has died")])
def test_a_contender_that_cannot_go_on_is_named(method, message):
    with (
        Contest([contender("lame")]) as contest,
        pytest.raises(RuntimeError, match=f"'lame'(.|\n)*{message}"),
    ):
        contest.times(method, rounds=1)


def test_times_of_different_things_are_not_compared():
    require_equal({"ours": 4.31, "torch": 4.31 * (1 + 1e-5)})
    with pytest.raises(SystemExit, match="do not compute the same loss"):
        require_equal({"ours": 4.31, "torch": 4.32})


def test_a_peer_that_is_missing_is_said():
    with pytest.raises(SystemExit, match="no_such_library is not installed; use --against none"):
        require("no_such_library")


def test_a_ratio_above_one_is_ahead():
    record = figures("x", [0.3, 0.1, 0.2], [0.4, 0.4, 0.4], 50.0, 100.0)
    assert record["ours_ms"] == pytest.approx(200)
    assert (record["ratio"], record["memory_ratio"]) == (pytest.approx(2), pytest.approx(0.5))
    assert figures("x", [0.1], None, 5.0, None).keys() == FIGURES | {"ours_spread_ms"}


@measures_memory
def test_a_training_step_alone(tiny, tmp_path, capsys):
    path = tmp_path / "step.json"
    command = ["--against", "none", "--rounds", "1", "--workers", "1", "--json", str(path)]
    assert train_step.main(command) == 0
    record = json.loads(path.read_text())
    assert record.keys() >= FIGURES | {"machine", "facts", "ours_forward_ms"}
    assert not record.keys() & {"ratio", "peer_ms"}
    assert record["facts"]["minigrad"]["workers"] == 1
    assert "minigrad" in capsys.readouterr().out


@measures_memory
@pytest.mark.slow
@pytest.mark.parametrize("peer", ["torch", "jax"])
def test_a_training_step_beside_a_peer_and_its_chart(tiny, tmp_path, peer, capsys):
    pytest.importorskip(peer)
    path, picture = tmp_path / "step.json", tmp_path / "step.png"
    assert train_step.main(["--against", peer, "--rounds", "2", "--json", str(path)]) == 0
    record = json.loads(path.read_text())
    assert record.keys() >= BESIDE_A_PEER | {"forward_ratio", "memory_ratio"}
    assert record["ratio"] == pytest.approx(record["peer_ms"] / record["ours_ms"])
    assert "peer / ours" in capsys.readouterr().out
    chart.main([str(picture), str(path)])
    assert picture.read_bytes().startswith(b"\x89PNG")


@measures_memory
@pytest.mark.slow
def test_sweeps_beside_a_peer(monkeypatch, tmp_path):
    pytest.importorskip("torch")
    path = tmp_path / "scaling.json"
    monkeypatch.setattr(scaling, "BASE", TINY)
    monkeypatch.setattr(scaling, "SWEEPS", {"batch": [TINY, TINY._replace(batch=6)]})
    assert scaling.main(["--rounds", "1", "--json", str(path)]) == 0
    found = json.loads(path.read_text())["sweeps"]
    assert found.keys() == {"batch", "workers"}
    assert found["batch"].keys() == {"3", "6"}
    for times in found["batch"].values():
        assert times["ratio"] == pytest.approx(times["peer_ms"] / times["ours_ms"])


@measures_memory
@pytest.mark.slow
def test_generation_beside_a_peer(tmp_path):
    pytest.importorskip("torch")
    path = tmp_path / "generate.json"
    sizes = ["--rounds", "1", "--batch", "2", "--tokens", "3", "--modes", "eager"]
    assert generate.main([*sizes, "--json", str(path)]) == 0
    record = json.loads(path.read_text())
    assert record.keys() >= BESIDE_A_PEER | {"batch_scaling", "batch_ratio"}


@measures_memory
@pytest.mark.slow
def test_tokenizers_side_by_side(tmp_path, rng):
    pytest.importorskip("tokenizers")
    path, text = tmp_path / "tokenizer.json", tmp_path / "text.txt"
    letters = rng.choice(list("etaoinshrdlu "), 20_000)  # enough to learn 150 merges
    text.write_text("".join(letters), encoding="utf-8")
    sizes = ["--rounds", "1", "--data", str(text)]
    assert tokenizer.main([*sizes, "--json", str(path)]) == 0
    record = json.loads(path.read_text())
    assert record.keys() >= BESIDE_A_PEER | {"train", "encode", "beside_the_original"}


@measures_memory
@pytest.mark.slow
def test_whole_commands_side_by_side(monkeypatch, tmp_path, capfd):
    """With stand-ins, because the real commands take a minute."""
    path = tmp_path / "end_to_end.json"
    seconds = {"examples/train_shakespeare.py": 0.3, "tests.benchmarks.original_script": 0.9}
    started = []

    def whole_process(command):
        name = next((word for word in command if word in seconds), None)
        if name is None:
            return real([command[0], "-c", end_to_end.SMALL_STEP])
        started.append(name)
        return real([command[0], "-c", f"import time; time.sleep({seconds[name]})"])

    real = end_to_end.whole_process
    monkeypatch.setattr(end_to_end, "whole_process", whole_process)
    monkeypatch.setattr(end_to_end, "require", lambda against: None)
    assert end_to_end.main(["--rounds", "2", "--json", str(path)]) == 0
    record = json.loads(path.read_text())
    assert started == list(seconds) * 2
    assert record["ratio"] == pytest.approx(record["peer_ms"] / record["ours_ms"])
    assert record["peer_ms"] >= 900 and record["ours_ms"] >= 300  # at least as long as they sleep
    assert record.keys() >= BESIDE_A_PEER | {"first_step_ms"}
    with pytest.raises(SystemExit, match="out of order"):
        real([sys.executable, "-c", "raise SystemExit('out of order')"])


def test_the_page_names_commands_and_records_that_exist():
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    modules = set(re.findall(r"python -m ([\w.]+)", page))
    assert len(modules) >= 5
    for module in modules:
        assert importlib.util.find_spec(module), module
    for record in (FOLDER / "results").glob("*.json"):
        found = json.loads(record.read_text(encoding="utf-8"))
        assert found.keys() >= {"benchmark", "workload", "machine"}, record


@pytest.mark.parametrize("workload", ["seed", "medium", "large"])
def test_the_page_gives_the_figures_of_the_records(workload):
    """The figures for a training step in the table are those in the record."""
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    record = json.loads((FOLDER / "results" / f"{workload}.json").read_text(encoding="utf-8"))
    (row,) = re.findall(rf"^\| {workload}: .*$", page, re.MULTILINE)
    for key in ("ratio", "forward_ratio"):
        assert f"{record[key]:.2f}×" in row, (key, row)
    for key in ("ours_ms", "peer_ms"):
        shown = f"{record[key]:,.0f}" if record[key] > 1000 else f"{record[key]:.1f}"
        assert f" {shown} ms" in row, (key, row)
    assert f" {record['ours_mb']:.0f} MB " in row
    assert f" {record['memory_ratio']:.2f} " in row


@pytest.mark.parametrize("workload", ["gpt2", "llama-135m"])
def test_the_page_gives_the_figures_of_large_models(workload):
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = re.findall(rf"^\| {workload} \|.*$", page, re.MULTILINE)
    path = FOLDER / "results" / f"{workload}.json"
    assert len(rows) == path.exists()
    if rows:
        record = json.loads(path.read_text(encoding="utf-8"))
        for key in ("ratio", "first_token_ratio"):
            assert f"{record[key]:.2f}×" in rows[0], key
        assert f" {record['memory_ratio']:.2f} " in rows[0]
        for name in ("ours", record["peer"]):
            assert f" {record['contenders'][name]['tokens_per_s']:.1f} " in rows[0]


@pytest.mark.slow
@measures_memory
@pytest.mark.parametrize("workload", ["gpt2", "llama-135m"])
def test_models_of_real_shapes_are_timed(workload, monkeypatch, tmp_path, capsys):
    sizes = {"d_model": 36, "d_ff": 32, "num_layers": 1, "num_heads": 9, "vocab_size": 49100}
    tiny = dataclasses.replace(huge_models.CONFIGS[workload], **sizes)
    monkeypatch.setitem(huge_models.CONFIGS, workload, tiny)
    path = tmp_path / "large.json"
    flags = ["--workload", workload, "--rounds", "1", "--tokens", "2", "--json", str(path)]
    assert generate_large.main([*flags, "--against", "none"]) == 0
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record.keys() >= FIGURES | {"contenders", "machine"}
    assert record["contenders"]["ours"]["tokens_per_s"] == pytest.approx(2000 / record["ours_ms"])
    assert "tokens/s" in capsys.readouterr().out
    if importlib.util.find_spec("transformers") is not None:
        assert generate_large.main([*flags, "--modes", "eager"]) == 0
        record = json.loads(path.read_text(encoding="utf-8"))
        assert record.keys() >= BESIDE_A_PEER | {"peer", "memory_ratio", "first_token_ratio"}
        assert "torch eager" in capsys.readouterr().out
