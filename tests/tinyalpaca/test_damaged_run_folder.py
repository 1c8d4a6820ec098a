"""Flipped bits in the files of a run give the right content, or one line that names the file."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from minigrad import Generator as RandomGenerator
from minigrad.storage import FileFormatError, load_safetensors
from tests.tinyalpaca.runs import resume, train, write_text
from tinyalpaca.cli import example
from tinyalpaca.config import ConfigError, ModelConfig, TrainConfig
from tinyalpaca.data import TokenFile
from tinyalpaca.generation import Generator
from tinyalpaca.model import TinyAlpaca
from tinyalpaca.parameter_names import parameter_shapes
from tinyalpaca.runs import RunFolder, load_model
from tinyalpaca.runs.checksums import SUMS, write_sums
from tinyalpaca.runs.layout import CONFIG, LATEST, read_pointer
from tinyalpaca.training.metrics_file import line_of, read_metrics
from tinyalpaca.training.resuming import find_checkpoint

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A run with some checkpoints."""
    folder = tmp_path_factory.mktemp("begun")
    train(folder / "run", write_text(folder), max_steps=6, save_every=3, keep=9)
    return folder


@pytest.fixture
def run(begun, tmp_path):
    return shutil.copytree(begun / "run", tmp_path / "run")


def flip(path: Path, rng: np.random.Generator) -> None:
    data = bytearray(path.read_bytes())
    data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    path.write_bytes(data)


def one_line(error: Exception, run: Path) -> bool:
    """Whether an error is one readable line that names a file of the run."""
    return isinstance(error, (ValueError, OSError)) and (
        str(run) in f"{error} {getattr(error, 'filename', '')}"
    )


def written_by(folder: Path) -> str:
    loaded = load_model(folder)
    return Generator(loaded.model, loaded.tokenizer).generate("the ", 12, seed=1)


def flips(begun: Path, tmp_path: Path, count: int, seed: int) -> None:
    """Flip bits in each file of a run in turn, and read the run as generation and training do."""
    rng = np.random.default_rng(seed)
    run = shutil.copytree(begun / "run", tmp_path / "run")
    files = sorted(path for path in run.rglob("*") if path.is_file() and path.stat().st_size)
    wanted = {path: written_by(path) for path in (run, *RunFolder(run).all())}
    latest = RunFolder(run).latest()
    weights = {
        path: load_safetensors(path / "model.safetensors")[0] for path in RunFolder(run).all()
    }
    records = read_metrics(run / "metrics.jsonl")
    tokens = {path: TokenFile.open(path).tokens.tolist() for path in run.glob("tokens/*.tokens")}
    for number in range(count):
        path = files[number % len(files)]
        before = path.read_bytes()
        flip(path, rng)
        # Read this file through its own folder, or through the pointers.
        source = path.parent if path.parent in wanted else run / "checkpoints" / path.name
        try:
            assert written_by(source) == wanted.get(source, wanted[latest]), path
        except (ValueError, OSError) as error:
            assert one_line(error, run), (path, error)
        if path.suffix == ".tokens":
            try:
                assert TokenFile.open(path).tokens.tolist() == tokens[path]
            except (ValueError, OSError) as error:
                assert one_line(error, run), (path, error)
        told: list[str] = []
        try:
            saved = find_checkpoint(run, told.append)
        except (ValueError, OSError) as error:
            assert one_line(error, run), (path, error)
        else:
            assert saved.folder == latest or told, path  # an earlier one is never used silently
            for name, array in weights[saved.folder].items():
                assert np.array_equal(array, saved.weights[name]), path
        told.clear()
        found = read_metrics(run / "metrics.jsonl", told.append)
        if found != records:
            assert path.name == "metrics.jsonl" and len(told) == 1 and "metrics.jsonl" in told[0]
            assert len(found) >= len(records) - 2 and all(record in records for record in found)
        path.write_bytes(before)


def test_bits_flipped_anywhere(begun, tmp_path):
    flips(begun, tmp_path, 150, seed=1)


@pytest.mark.slow
def test_thousands_of_bits_flipped_anywhere(begun, tmp_path):
    flips(begun, tmp_path, 2000, seed=2)


@pytest.mark.parametrize("damage", ["first", "middle", "all", "digit", "key", "newline"])
def test_a_damaged_line_of_the_metrics_costs_that_line(run, capsys, damage):
    path = run / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    count, lost = len(lines), 1
    if damage == "first":
        lines[0] = b"\xff\x00" + lines[0][2:]
    elif damage == "middle":
        lines[3] = lines[3][:40] + b"\n"
    elif damage == "all":
        lines, lost = [b"[" * 5000 + b"\n"] * count, count
    elif damage == "digit":
        place = lines[2].index(b'"loss": ') + 10
        lines[2] = lines[2][:place] + bytes([lines[2][place] ^ 1]) + lines[2][place + 1 :]
    elif damage == "key":
        lines[1] = lines[1].replace(b"crc32", b"crb32")
    else:
        lines[1], lost = lines[1][:-1], 2
    path.write_bytes(b"".join(lines))
    assert len(read_metrics(path)) == count - lost
    resumed = resume(run, max_steps=8)
    err = capsys.readouterr().err
    assert "metrics.jsonl" in err and "damaged and left out" in err
    steps = [record["step"] for record in read_metrics(path) if record["kind"] == "step"]
    assert steps[-2:] == [7, 8] and len(steps) >= 8 - lost
    epochs = [record for record in read_metrics(path) if record["kind"] == "epoch"]
    assert epochs == resumed.state.records  # the checkpoints have them too


def test_metrics_of_an_older_version_are_read(tmp_path):
    step = {"kind": "step", "step": 1, "epoch": 1, "loss": 1.5, "learning_rate": 0.1}
    step |= {"grad_norm": 1.0, "tokens_per_second": 9.0}
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps(step), '{"kind": "step", "step": 2}', "", "3", "null", json.dumps(step)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    told: list[str] = []
    assert read_metrics(path, told.append) == [step, step]
    assert told == [f"{path}: lines 2, 3, 4, 5 are damaged and left out"]
    path.write_text(line_of(step) + lines[0] + "\n", encoding="utf-8")
    assert read_metrics(path) == [step]


BAD_POINTERS = [b"", b"step-99999999\n", b"\xff\xfe", b"../../etc\n", b"step-00000000/..\n"]


@pytest.mark.parametrize("content", BAD_POINTERS)
def test_with_best_unreadable_the_best_weights_stay(run, capsys, content):
    """They are found by their step, and nothing else ever replaces them."""
    folder = RunFolder(run)
    best, published = folder.best(), (run / "model.safetensors").read_bytes()
    (folder.checkpoints / "best").write_bytes(content)
    with pytest.raises(FileFormatError, match="best"):
        folder.publish()
    (run / CONFIG).rename(run / "elsewhere")
    with pytest.raises(FileFormatError, match="best"):
        load_model(run)
    (run / "elsewhere").rename(run / CONFIG)
    folder.prune(1)
    assert best.is_dir()
    resumed = resume(run, max_steps=6)
    assert resumed.state.step == 6
    assert (run / "model.safetensors").read_bytes() == published
    assert folder.best() == best
    assert "best" in capsys.readouterr().err


def test_with_the_best_checkpoint_damaged_what_is_published_stays(run):
    folder = RunFolder(run)
    best, published = folder.best(), (run / "model.safetensors").read_bytes()
    (best / "model.safetensors").write_bytes(b"x" + (best / "model.safetensors").read_bytes()[1:])
    with pytest.raises(FileFormatError, match=r"model\.safetensors"):
        folder.publish()
    assert (run / "model.safetensors").read_bytes() == published
    load_model(run)


@pytest.mark.parametrize("content", BAD_POINTERS)
def test_with_latest_unreadable_the_newest_is_taken_and_that_is_said(run, capsys, content):
    newest = RunFolder(run).latest()
    (run / "checkpoints/latest").write_bytes(content)
    told: list[str] = []
    assert find_checkpoint(run, told.append).folder == newest
    assert "latest" in told[0]
    with pytest.raises(FileFormatError, match="latest"):
        read_pointer(run / "checkpoints" / LATEST)


SIZES = [
    {}, {"tie_weights": True}, {"pre_norm": True, "norm": "rms"}, {"pre_norm": True, "bias": False},
    {"norm": "rms"}, {"positions": "rotary", "bias": False}, {"num_layers": 3},
]  # fmt: skip


@pytest.mark.parametrize("options", SIZES)
def test_shapes_are_known_without_a_model(options):
    sizes = {"vocab_size": 11, "d_model": 8, "d_ff": 6, "num_heads": 2, "num_layers": 1}
    config = ModelConfig(**{**sizes, "max_seq_len": 5, **options})
    model = TinyAlpaca(config, RandomGenerator(0))
    wanted = {name: array.shape for name, array in model.state_dict().items()}
    shapes = dict(parameter_shapes(config))
    if config.tie_weights:
        wanted.setdefault("final_linear.weight", (11, 8))
    assert shapes == wanted


@pytest.mark.parametrize(
    "size",
    [
        {"d_model": 10**12, "num_heads": 1}, {"vocab_size": 10**15}, {"num_layers": 10**12},
        {"max_seq_len": 10**13}, {"d_ff": 10**14}, {"positions": "rotary", "max_seq_len": 10**12},
    ],
)  # fmt: skip
@pytest.mark.parametrize("sums", [False, True])
def test_absurd_sizes_are_found_before_memory_is_asked_for(run, capsys, size, sums):
    """Also if the checksums are right, as in a malicious file."""
    for folder in (run, *RunFolder(run).all()):
        content = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        content["model"] |= size
        (folder / CONFIG).write_text(json.dumps(content), encoding="utf-8")
        if sums:
            write_sums(folder, [p.name for p in folder.iterdir() if p.is_file() and p.name != SUMS])
    for command, argv in (("generate", ["--checkpoint"]), ("train", ["--resume"])):
        assert example(command, [*argv, str(run)]) == 1
        err = capsys.readouterr().err
        assert "Traceback" not in err and "error: " in err and str(run) in err


@pytest.mark.parametrize(
    "setting", [{"workers": 10_000}, {"workers": -1}, {"epochs": "x"}, {"learning_rate": 10**400}]
)
def test_absurd_settings_are_refused_with_the_files_name(run, capsys, setting):
    for folder in RunFolder(run).all():
        content = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        content["training"] |= setting
        (folder / CONFIG).write_text(json.dumps(content), encoding="utf-8")
        write_sums(folder, [p.name for p in folder.iterdir() if p.name != SUMS])
    assert example("train", ["--resume", str(run)]) == 1
    err = capsys.readouterr().err
    assert CONFIG in err and next(iter(setting)) in err and err.count("error: ") == 1
    assert "Traceback" not in err


def test_so_many_workers_are_refused_as_a_flag_too():
    with pytest.raises(ConfigError, match="workers must be at most"):
        TrainConfig(workers=10_000)


def test_deep_json_names_the_file(run, capsys):
    (run / CONFIG).write_text("[" * 100_000, encoding="utf-8")
    assert example("generate", ["--checkpoint", str(run)]) == 1
    assert CONFIG in capsys.readouterr().err


@pytest.mark.parametrize("key", ["sampler", "schedule", "optimizer", "records", "loss", "best"])
def test_a_state_of_another_kind_names_the_file(run, key):
    for folder in RunFolder(run).all():
        content = json.loads((folder / "trainer.json").read_text(encoding="utf-8"))
        content[key] = {"what": "is this"} if key != "records" else 3
        (folder / "trainer.json").write_text(json.dumps(content), encoding="utf-8")
        write_sums(folder, [p.name for p in folder.iterdir() if p.name != SUMS])
    with pytest.raises(FileFormatError, match=r"trainer\.json"):
        resume(run, max_steps=8)
