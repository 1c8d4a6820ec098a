"""A changed byte in a checkpoint is detected, and good checkpoints are never damaged."""

import shutil

import numpy as np
import pytest

from minigrad.storage import FileFormatError
from tests.tinyalpaca.runs import train, write_text
from tinyalpaca.runs import RunFolder, load_model, save_model
from tinyalpaca.runs.checksums import SUMS, check_sums
from tinyalpaca.runs.layout import REQUIRED


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a short run."""
    folder = tmp_path_factory.mktemp("run")
    train(folder / "run", write_text(folder), epochs=1)
    return folder / "run"


@pytest.fixture
def checkpoint(run, tmp_path):
    return shutil.copytree(RunFolder(run).latest(), tmp_path / "checkpoint")


def test_a_changed_byte_in_any_file_is_noticed(checkpoint, rng):
    check_sums(checkpoint, REQUIRED)
    files = sorted(checkpoint.iterdir())
    assert {path.name for path in files} >= {*REQUIRED, SUMS}
    for path in files:
        data = path.read_bytes()
        places = np.arange(len(data)) if path.name == SUMS else rng.integers(0, len(data), 60)
        for place in places:
            damaged = bytearray(data)
            damaged[place] ^= 1 << rng.integers(0, 8)
            path.write_bytes(damaged)
            with pytest.raises(FileFormatError, match=r"damaged|missing|does not match"):
                check_sums(checkpoint, REQUIRED)
        path.write_bytes(data)
    check_sums(checkpoint, REQUIRED)


def test_a_file_cut_short_or_gone_is_noticed(checkpoint):
    for path in sorted(checkpoint.iterdir()):
        data = path.read_bytes()
        path.write_bytes(data[:-1])
        with pytest.raises(FileFormatError):
            check_sums(checkpoint, REQUIRED)
        path.unlink()
        with pytest.raises(FileFormatError, match="missing"):
            check_sums(checkpoint, REQUIRED)
        path.write_bytes(data)


def test_a_list_without_a_required_file_is_noticed(checkpoint):
    lines = (checkpoint / SUMS).read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if "trainer.json" not in line]
    (checkpoint / SUMS).write_text("".join(kept), encoding="utf-8")
    with pytest.raises(FileFormatError, match=r"does not name trainer\.json"):
        check_sums(checkpoint, REQUIRED)


def test_loading_a_model_notices_changed_weights(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "copy")
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-3] ^= 4
    (folder / "model.safetensors").write_bytes(weights)
    with pytest.raises(FileFormatError, match="does not match its checksum"):
        load_model(folder)
    load_model(folder / "checkpoints/best")  # another copy


def test_every_way_to_name_a_model_leads_to_it(run, tmp_path):
    weights = load_model(run).model.state_dict()
    best = RunFolder(run).best()
    unpublished = shutil.copytree(run, tmp_path / "copy")
    (unpublished / "config.json").unlink()
    for path in (best, run / "checkpoints/best", run / "checkpoints/latest", unpublished):
        loaded = load_model(path)
        assert loaded.training is not None and not loaded.model.training
        for name, array in loaded.model.state_dict().items():
            assert np.array_equal(array, weights[name])


def test_saving_over_a_model_leaves_fitting_checksums(run, tmp_path):
    loaded = load_model(run)
    save_model(tmp_path, loaded.model, loaded.tokenizer)
    loaded.model.parameters()[0].data[...] = 0
    save_model(tmp_path, loaded.model, loaded.tokenizer, loaded.training)
    check_sums(tmp_path, ["model.safetensors", "config.json", "tokenizer.json"])
    assert load_model(tmp_path).model.parameters()[0].data.max() == 0
