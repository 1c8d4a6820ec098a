"""Files written before the embeddings had the original's names can still be read.

They were layers with a weight: "embedding.token_embed.weight" is now "embedding.token_embed".
"""

import json
import shutil

import numpy as np
import pytest

from minigrad.storage import load_safetensors, save_safetensors
from tests.tinyalpaca.runs import assert_same_weights, resume, train, write_text
from tests.tinyalpaca.test_resume import HARD
from tests.tinyalpaca.tiny_models import tiny_model, tiny_tokenizer
from tinyalpaca import cli
from tinyalpaca.runs import RunFolder, load_model, save_model
from tinyalpaca.runs.checksums import SUMS, write_sums
from tinyalpaca.tokenizer import load_tokenizer

TABLES = ("embedding.token_embed", "embedding.pos_embed")


def former(name: str) -> str:
    return f"{name}.weight" if name.endswith(TABLES) else name


def make_former(folder):
    """Rename the embeddings in the files of a checkpoint to their former names."""
    changed = 0
    for path in folder.glob("*.safetensors"):
        arrays, metadata = load_safetensors(path)
        changed += sum(name != former(name) for name in arrays)
        named = {former(name): np.array(array) for name, array in arrays.items()}
        save_safetensors(named, path, metadata)
    trainer = folder / "trainer.json"
    if trainer.is_file():
        content = json.loads(trainer.read_text(encoding="utf-8"))
        optimizer = content["optimizer"]
        optimizer["names"] = [former(name) for name in optimizer["names"]]
        optimizer["numbers"] = {former(k): value for k, value in optimizer["numbers"].items()}
        trainer.write_text(json.dumps(content), encoding="utf-8")
    if (folder / SUMS).is_file():
        write_sums(folder, [path.name for path in folder.iterdir() if path.name != SUMS])
    return changed


@pytest.mark.parametrize("options", [{}, {"tie_weights": True}, {"positions": "rotary"}])
def test_a_state_dict_with_former_names_loads(options):
    model, other = tiny_model(**options), tiny_model(**options, seed=1)
    state = {former(name): array for name, array in model.state_dict().items()}
    assert "embedding.token_embed.weight" in state
    other.load_state_dict(state)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name], array)


def test_a_table_by_both_names_is_refused():
    model = tiny_model()
    state = model.state_dict()
    state["embedding.pos_embed.weight"] = state["embedding.pos_embed"] + 1
    with pytest.raises(ValueError, match=r"unexpected: embedding\.pos_embed\.weight"):
        model.load_state_dict(state)


def test_a_former_checkpoint_loads_and_writes(tmp_path):
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer.vocab_size)
    save_model(tmp_path, model, tokenizer)
    assert make_former(tmp_path) == 2
    for name, array in load_model(tmp_path).model.state_dict().items():
        np.testing.assert_array_equal(array, model.state_dict()[name])


def test_a_former_file_for_pytorch_converts(tmp_path):
    """A file that `--to torch` wrote before, with a vocabulary of the original."""
    model = tiny_model(vocab_size=4, max_seq_len=16)
    weights = tmp_path / "a.safetensors"
    for prefix in ("", "module."):
        named = {prefix + former(name): array for name, array in model.state_dict().items()}
        save_safetensors(named, weights)
        vocabulary = tmp_path / "training_vocab.json"
        vocabulary.write_text('{"0": "▁", "1": "[UNK]", "2": "a", "3": "b"}', encoding="utf-8")
        out = tmp_path / f"out{prefix}"
        command = ["convert", weights, vocabulary, out, "--num-heads", 3]
        assert cli.main(list(map(str, command))) == 0
        assert load_tokenizer(vocabulary).vocab_size == 4
        for name, array in load_model(out).model.state_dict().items():
            np.testing.assert_array_equal(array, model.state_dict()[name])


@pytest.mark.parametrize("settings", [{}, HARD], ids=["plain", "hard"])
def test_a_former_run_goes_on_bit_for_bit(tmp_path, settings):
    """Weights, their average, the optimizer's averages and counters are matched to parameters."""
    text = write_text(tmp_path)
    train(tmp_path / "half", text, epochs=1, **settings)
    shutil.copytree(tmp_path / "half", tmp_path / "former")
    for checkpoint in (RunFolder(tmp_path / "former").path / "checkpoints").glob("step-*"):
        assert make_former(checkpoint) >= 6  # weights and two averages for each table
    resume(tmp_path / "half", epochs=2)
    resume(tmp_path / "former", epochs=2)
    assert_same_weights(tmp_path / "half", tmp_path / "former")
