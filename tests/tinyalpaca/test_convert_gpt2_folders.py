"""GPT-2 in its usual file formats, and our models as folders that `transformers` loads."""

import json
import os
import shutil

import numpy as np
import pytest

import tinyalpaca
from minigrad import Generator as RandomGenerator
from minigrad.storage import load_safetensors, safetensors_file, save_safetensors
from tests.tinyalpaca.tiny_models import TEXT, tiny_tokenizer
from tinyalpaca import cli
from tinyalpaca.config import ModelConfig
from tinyalpaca.generation import Generator
from tinyalpaca.model import TinyAlpaca
from tinyalpaca.play.session import Session
from tinyalpaca.runs import load_model, save_model
from tinyalpaca.tokenizer import BPETokenizer, CharTokenizer

torch = pytest.importorskip("torch", reason="PyTorch is not installed to compare with")
pytestmark = pytest.mark.filterwarnings("ignore")  # warnings of transformers


@pytest.fixture
def folder(gpt2, tmp_path):
    """A copy of a GPT-2 folder, which the test may change."""
    return shutil.copytree(gpt2[0], tmp_path / "theirs")


def converted(folder):
    out = folder.parent / "converted"
    shutil.rmtree(out, ignore_errors=True)
    assert cli.main(["convert", str(folder), str(out)]) == 0
    return load_model(out)


def refused(folder, capsys):
    assert cli.main(["convert", str(folder), str(folder.parent / "out")]) == 1
    return capsys.readouterr().err


def assert_same_logits(ours, theirs, atol=1e-4, rtol=0.0):
    ids = np.arange(40).reshape(2, 20)
    with torch.no_grad():
        expected = theirs(torch.tensor(ids)).logits.float().numpy()
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(ours(ids).numpy(), expected, atol=atol, rtol=rtol)


def rewrite(folder, change, file="model.safetensors"):
    """Change the tensors of a folder and write them to a file with another name."""
    tensors = change(dict(load_safetensors(folder / "model.safetensors")[0]))
    (folder / "model.safetensors").unlink()
    if file.endswith(".bin"):
        torch.save({k: torch.tensor(np.array(v)) for k, v in tensors.items()}, folder / file)
    else:
        save_safetensors(tensors, folder / file, {"format": "pt"})


def shards_of(folder, suffix):
    """Replace the weights file by three shards and an index."""
    tensors = dict(load_safetensors(folder / "model.safetensors")[0])
    (folder / "model.safetensors").unlink()
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    places = {}
    for number in range(3):
        part = {name: tensors[name] for name in list(tensors)[number::3]}
        shard = f"{stem}-{number + 1:05d}-of-00003.{suffix}"
        if suffix == "bin":
            torch.save({k: torch.tensor(v) for k, v in part.items()}, folder / shard)
        else:
            save_safetensors(part, folder / shard, {"format": "pt"})
        places |= dict.fromkeys(part, shard)
    index = folder / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}), encoding="utf-8")
    return index


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_shards(gpt2, folder, capsys, suffix):
    index = shards_of(folder, suffix)
    assert_same_logits(converted(folder).model, gpt2[1])
    content = json.loads(index.read_text(encoding="utf-8"))
    shard = sorted(set(content["weight_map"].values()))[1]
    (folder / shard).rename(folder / "away")
    assert f"{folder / shard} is missing" in refused(folder, capsys)
    (folder / "away").rename(folder / shard)
    for place in ("../theirs/" + shard, "..\\" + shard, "/etc/passwd", "", "a\0", 3):
        wrong = {**content["weight_map"], "transformer.wte.weight": place}
        index.write_text(json.dumps({"weight_map": wrong}), encoding="utf-8")
        assert index.name in refused(folder, capsys)
    wrong = {**content["weight_map"], "transformer.more": shard}
    index.write_text(json.dumps({"weight_map": wrong}), encoding="utf-8")
    assert "says that it holds 'transformer.more'" in refused(folder, capsys)


def test_shards_as_transformers_writes_them(gpt2, tmp_path):
    folder = tmp_path / "theirs"
    gpt2[1].save_pretrained(folder, max_shard_size="20KB")
    gpt2[2].save_pretrained(folder)
    assert (folder / "model.safetensors.index.json").is_file()
    assert_same_logits(converted(folder).model, gpt2[1])


def half(tensors):
    return {k: v.astype(np.float16) for k, v in tensors.items()}


def without_prefix(tensors):
    return {k.removeprefix("transformer."): v for k, v in tensors.items()}


def with_buffers(tensors):
    mask = {"transformer.h.0.attn.bias": np.tri(40, dtype=bool)[None, None]}
    return tensors | mask | {"transformer.h.0.attn.masked_bias": np.array(-1e4, np.float32)}


def with_head(tensors):
    return tensors | {"lm_head.weight": tensors["transformer.wte.weight"]}


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("change", [dict, half, without_prefix, with_buffers, with_head])
def test_names_and_files_of_other_versions(gpt2, folder, change, file):
    rewrite(folder, change, file)
    close = {"atol": 0.05, "rtol": 0.01} if change is half else {}
    assert_same_logits(converted(folder).model, gpt2[1], **close)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("transformer.h.0.attn.c_attn.lora_A", "tensors are none of a plain GPT-2's"),
        ("lm_head.weight", "lm_head.weight is not the token embedding"),
    ],
)
def test_tensors_that_would_change_the_results_are_refused(folder, capsys, more, message):
    rewrite(folder, lambda tensors: {**tensors, more: tensors["transformer.wte.weight"] + 1})
    assert message in refused(folder, capsys)


def test_added_tokens_are_kept(gpt2, transformers, tmp_path):
    tokenizer = transformers.GPT2TokenizerFast.from_pretrained(gpt2[0])
    tokenizer.add_tokens(["llama!"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>"]})
    folder = shutil.copytree(gpt2[0], tmp_path / "theirs")
    tokenizer.save_pretrained(folder)
    assert {"vocab.json", "merges.txt", "tokenizer.json"} <= {p.name for p in folder.iterdir()}
    ours = converted(folder).tokenizer
    for text in ("a llama! <|user|>hi", "llama!llama", "<|endoftext|>"):
        assert ours.encode(text, allowed_special="all") == tokenizer(text)["input_ids"]
    assert len(ours.encode("llama!")) == 1


@pytest.mark.parametrize("described", [False, True])
def test_added_tokens_of_a_folder_without_a_tokenizer_json(gpt2, folder, described):
    (folder / "tokenizer.json").unlink(missing_ok=True)
    size = len(json.loads((folder / "vocab.json").read_text(encoding="utf-8")))
    added = {"llama!": size, "<pad>": size + 1}
    (folder / "added_tokens.json").write_text(json.dumps(added), encoding="utf-8")
    settings = {"pad_token": "<pad>"}
    if described:
        entries = {str(i): {"content": t, "special": t == "<pad>"} for t, i in added.items()}
        settings["added_tokens_decoder"] = entries
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    ours = converted(folder).tokenizer
    assert ours.encode("llama!<pad>", allowed_special="all") == [size, size + 1]
    assert ours.encode("llama!")[0] == size
    assert len(ours.encode("<pad>")) > 1


def test_special_tokens_without_an_embedding_are_left_out(gpt2, transformers, tmp_path, capsys):
    folder = shutil.copytree(gpt2[0], tmp_path / "theirs")
    tokenizer = transformers.GPT2TokenizerFast.from_pretrained(gpt2[0])
    names = [f"<{n}>" for n in range(5)]  # the model has three rows more than the tokenizer tokens
    tokenizer.add_special_tokens({"additional_special_tokens": names})
    tokenizer.save_pretrained(folder)
    ours = converted(folder)
    assert "no embedding of <3>, <4>: left out" in capsys.readouterr().err
    assert ours.tokenizer.vocab_size == ours.model.config.vocab_size
    assert ours.tokenizer.encode("<2>", allowed_special="all") == tokenizer("<2>")["input_ids"]
    tokenizer.add_tokens(["ordinary"])
    tokenizer.save_pretrained(folder)
    assert "the model only" in refused(folder, capsys)


# Our models in their format.

OPTIONS = {"pre_norm": True, "activation": "gelu", "bias": False, "tie_weights": True}


def ours(tmp_path, tokenizer, **options):
    sizes = {"d_model": 24, "d_ff": 40, "num_heads": 3, "num_layers": 2, "max_seq_len": 40}
    config = ModelConfig(tokenizer.vocab_size, **{**sizes, **OPTIONS, **options})
    model = TinyAlpaca(config, RandomGenerator(1))
    rng = np.random.default_rng(2)
    for name, parameter in model.named_parameters():
        noise = 0.3 * rng.standard_normal(parameter.shape)
        noise *= name != "final_linear.bias"
        weight = parameter.numpy() * (name != "final_linear.bias")
        parameter.assign((weight + noise).astype(np.float32))
    folder = tmp_path / "ours"
    folder.mkdir()
    save_model(folder, model, tokenizer)
    return folder, model.eval()


def special_bpe():
    return BPETokenizer.train(TEXT, num_merges=30, special_tokens=["<|endoftext|>"])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": True, "tie_weights": False, "activation": "gelu_tanh"},
        {"activation": "relu"},
        {"activation": "silu", "tie_weights": False},
    ],
)
def test_transformers_load_what_we_write(transformers, tmp_path, options):
    folder, model = ours(tmp_path, special_bpe(), **options)
    out = tmp_path / "gpt2"
    assert cli.main(["convert", str(folder), str(out), "--to", "gpt2"]) == 0
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out).eval()
    assert_same_logits(model, theirs)
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    mine = special_bpe()
    for text in (TEXT, " naïve 🦙\n\n", "a<|endoftext|>b", "it's  12"):
        ids = mine.encode(text, allowed_special="all")
        assert tokenizer(text)["input_ids"] == ids
        assert tokenizer.decode(ids) == text
    end = mine.special_tokens["<|endoftext|>"]
    assert (theirs.config.eos_token_id, tokenizer.eos_token_id) == (end, end)
    back = converted(out)
    assert back.tokenizer.fingerprint == mine.fingerprint
    ids = np.arange(20)[None]
    np.testing.assert_array_equal(back.model(ids).numpy(), model(ids).numpy())


def test_characters_for_transformers(transformers, tmp_path):
    text = "aé🦙 b\n  c"
    tokenizer = CharTokenizer.train(text + TEXT, ["<|endoftext|>"])
    folder, _ = ours(tmp_path, tokenizer)
    out = tmp_path / "gpt2"
    assert cli.main(["convert", str(folder), str(out), "--to", "gpt2"]) == 0
    theirs = transformers.AutoTokenizer.from_pretrained(out)
    ids = tokenizer.encode(text + "<|endoftext|>", allowed_special="all")
    assert theirs(text + "<|endoftext|>")["input_ids"] == ids
    assert theirs.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"pre_norm": False}, "pre_norm = False"),
        ({"norm": "rms"}, "norm = 'rms'"),
        ({"positions": "rotary"}, "positions = 'rotary'"),
    ],
)
def test_what_gpt2_cannot_compute_is_refused(tmp_path, capsys, options, reason):
    folder, _ = ours(tmp_path, tiny_tokenizer(), **options)
    out = tmp_path / "gpt2"
    assert cli.main(["convert", str(folder), str(out), "--to", "gpt2"]) == 1
    assert f"GPT-2 cannot compute this model: it has {reason}" in capsys.readouterr().err
    assert not out.exists()


def test_a_bias_in_the_head_is_refused(tmp_path, capsys):
    folder, model = ours(tmp_path, tiny_tokenizer(), bias=True)
    model.final_linear.bias.assign(np.ones(model.config.vocab_size, np.float32))
    save_model(folder, model, tiny_tokenizer())
    assert cli.main(["convert", str(folder), str(tmp_path / "gpt2"), "--to", "gpt2"]) == 1
    assert "a bias in its final layer (train with --no-bias)" in capsys.readouterr().err


@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
@pytest.mark.parametrize("several", [False, True])
def test_a_fine_tuned_models_own_end_of_a_text(folder, capsys, file, several):
    """Both libraries stop at it, and our export names it for theirs."""
    for name in ("generation_config.json", "config.json"):
        content = json.loads((folder / name).read_bytes())
        old = content["eos_token_id"]
        content["eos_token_id"] = ([old, 5] if several else 5) if name == file else 7
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    if file == "config.json":
        (folder / "generation_config.json").unlink()
    model, tokenizer, _ = converted(folder)
    assert model.end_tokens == (5,) and tokenizer.end_token == old
    back = folder.parent / "back"
    model.final_linear.bias.assign(np.zeros_like(model.final_linear.bias.numpy()))
    save_model(folder.parent / "converted", model, tokenizer)
    assert cli.main(["convert", str(folder.parent / "converted"), str(back), "--to", "gpt2"]) == 0
    for name in ("generation_config.json", "config.json"):
        assert json.loads((back / name).read_bytes())["eos_token_id"] == [old, 5]
    for wrong in ("5", -1, [1.5], {}):
        content["eos_token_id"] = wrong
        (folder / file).write_text(json.dumps(content), encoding="utf-8")
        shutil.rmtree(folder.parent / "out", ignore_errors=True)
        assert f"{folder / file}: eos_token_id must be a token id" in refused(folder, capsys)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"vocab_size": True}, "vocab_size must be int, not True"),
        ({"n_embd": 24.0}, "d_model must be int"),
        ({"n_layer": "3"}, "num_layers must be int"),
        ({"tie_word_embeddings": "no"}, "tie_weights must be bool"),
        ({"n_positions": 10**13}, "which these weights cannot fill"),
        ({"n_layer": 10**13}, "there is no tensor"),
    ],
)
def test_a_configuration_of_strange_values_is_refused(folder, capsys, setting, message):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **setting}), encoding="utf-8")
    error = refused(folder, capsys)
    assert message in error and error.startswith(f"error: {folder}")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes have names on POSIX")
def test_pipes_in_the_place_of_files_are_not_waited_for(folder, capsys):
    ours = folder.parent / "converted"
    converted(folder)
    (ours / "SHA256SUMS").unlink()
    theirs = ("config.json", "vocab.json", "model.safetensors")
    for place in theirs:
        (folder / place).rename(folder / "away")
        os.mkfifo(folder / place)
        assert "error: " in refused(folder, capsys)
        (folder / "away").replace(folder / place)
    for place in ("config.json", "tokenizer.json", "model.safetensors"):
        (ours / place).rename(ours / "away")
        os.mkfifo(ours / place)
        assert cli.main(["generate", "--checkpoint", str(ours), "--seed", "1"]) == 1
        assert "error: " in capsys.readouterr().err
        (ours / "away").replace(ours / place)


def test_text_is_written_without_converting_first(folder, capsys, tmp_path):
    """The command, `Generator` and `tinyalpaca.load` write the same text as after converting."""
    wanted = Generator(*converted(folder)[:2]).generate("the cat", 20, seed=3)
    flags = ["--checkpoint", str(folder), "--prompt", "the cat", "--seed", "3"]
    capsys.readouterr()
    assert cli.main(["generate", *flags, "--max-new-tokens", "20"]) == 0
    assert capsys.readouterr().out == f"the cat{wanted}\n"
    assert Generator.from_checkpoint(folder).generate("the cat", 20, seed=3) == wanted
    model, tokenizer, training = tinyalpaca.load(folder)
    assert Generator(model, tokenizer).generate("the cat", 20, seed=3) == wanted
    assert training is None and not model.training
    asked = {"prompt": "the cat", "max_new_tokens": 20, "seed": 3}
    tokens = [part["token"] for part in Session(folder).write(asked) if "token" in part]
    assert "".join(token["text"] for token in tokens if not token["part"]) == wanted
    assert cli.main(["evaluate", *flags[:2], "--text", "the cat sat"]) == 0
    assert "7 tokens predicted" in capsys.readouterr().out


def test_a_large_file_of_weights_stays_where_it_is(folder, monkeypatch):
    """The file is memory-mapped, and changes are made in memory only."""
    monkeypatch.setattr(safetensors_file, "MAPPED", 1)
    before = (folder / "model.safetensors").read_bytes()
    wanted = Generator.from_checkpoint(folder).generate("the cat", 20, seed=3)
    model = tinyalpaca.load(folder).model
    weight = model.decoder_layers[0].ffn.fc1.weight
    place = weight.array
    while isinstance(place, np.ndarray) and place.base is not None:
        place = place.base
    assert not isinstance(place, np.ndarray) or os.name != "posix"  # the mapping itself
    weight.assign(weight.array * 2)
    assert (folder / "model.safetensors").read_bytes() == before
    assert Generator.from_checkpoint(folder).generate("the cat", 20, seed=3) == wanted
