"""Beginning and end of a text: token ids as a prompt, empty prompts, `<|endoftext|>`."""

import json

import numpy as np
import pytest

import minigrad as mg
from minigrad.storage import FileFormatError
from tests.tinyalpaca.tiny_models import TEXT, tiny_model, tiny_tokenizer
from tinyalpaca.cli import main
from tinyalpaca.generation import Generator
from tinyalpaca.generation.text_stream import TextStream
from tinyalpaca.runs import load_model, save_model
from tinyalpaca.tokenizer import BPETokenizer

END = "<|endoftext|>"


@pytest.fixture(scope="module")
def tokenizer():
    return BPETokenizer.train(TEXT, num_merges=20, special_tokens=[END])


@pytest.fixture(scope="module")
def generator(tokenizer):
    model = tiny_model(vocab_size=tokenizer.vocab_size, max_seq_len=32)
    bias = np.zeros(tokenizer.vocab_size, np.float32)
    bias[tokenizer.end_token] = 2  # it is drawn sometimes
    model.final_linear.bias.assign(model.final_linear.bias.numpy() + bias)
    return Generator(model, tokenizer)


def test_ids_are_continued_as_their_text_is(generator, tokenizer):
    ids = tokenizer.encode("the cat")
    expected = generator.generate("the cat", 10, seed=1)
    for prompt in (ids, tuple(ids), np.array(ids, np.uint16)):
        assert generator.generate(prompt, 10, seed=1) == expected
        assert "".join(generator.stream(prompt, 10, seed=1)) == expected
    both = generator.generate([ids, "the cat"], 10, seed=1)
    assert both == [expected, expected]
    assert generator.generate([np.array(ids)], 10, seed=1) == [expected]
    assert generator.generate([], 10) == []
    for wrong in (-1, tokenizer.vocab_size):
        with pytest.raises(ValueError, match=f"token id {wrong} is out of range"):
            generator.generate([0, wrong])


def test_an_empty_prompt_begins_at_the_end_token(generator, tokenizer):
    end = tokenizer.end_token
    expected = generator.generate([end], 10, seed=2)
    assert generator.generate("", 10, seed=2) == expected
    assert generator.generate(["", []], 10, seed=2) == [expected, expected]
    assert "".join(generator.stream("", 10, seed=2)) == expected
    without = Generator(tiny_model(vocab_size=tiny_tokenizer().vocab_size), tiny_tokenizer())
    with pytest.raises(ValueError, match="the prompt is empty"):
        without.generate("")


@pytest.mark.parametrize("stop", [None, "the dog\0zz"])
def test_a_text_ends_before_its_end_token(generator, tokenizer, stop):
    end, ended = tokenizer.end_token, 0
    prompts = ["the cat", "a", "", "on the mat"] * 5
    seeds = list(range(len(prompts)))
    settings = {"max_new_tokens": 25, "temperature": 1.0, "stop": stop}
    results = generator.generate(prompts, seed=seeds, return_logprobs=True, **settings)
    whole = generator.generate(
        prompts, seed=seeds, return_logprobs=True, stop_at_end=False, **settings
    )
    for prompt, seed, result, more in zip(prompts, seeds, results, whole, strict=True):
        first = more.tokens.index(end) if end in more.tokens else len(more.tokens)
        ended += first < len(more.tokens)
        assert result.tokens == more.tokens[: first + 1]
        assert result.logprobs == pytest.approx(more.logprobs[: first + 1])
        assert result.text == tokenizer.decode(more.tokens[:first])
        steps = list(generator.steps(prompt, seed=seed, **settings))
        assert [step.token for step in steps] == result.tokens
        assert "".join(step.text for step in steps) == result.text
        assert "".join(generator.stream(prompt, seed=seed, **settings)) == result.text
        assert generator.generate(prompt, seed=seed, **settings) == result.text
    assert 3 < ended < len(prompts)
    assert generator.generate(prompts, seed=seeds, **settings) == [r.text for r in results]
    with mg.textbook():
        assert generator.generate(prompts[:3], seed=seeds[:3], **settings) == (
            [r.text for r in results[:3]]
        )


def test_what_was_held_back_comes_with_the_end(tokenizer):
    stream = TextStream(tokenizer, "the dog", [tokenizer.end_token])
    half = tokenizer.encode("é")[:1]
    pieces = [stream.feed(*tokenizer.encode("on the d")), stream.feed(*half, tokenizer.end_token)]
    assert stream.stopped
    assert "".join(pieces) + stream.finish() == "on the d�"


def test_the_command(generator, tokenizer, tmp_path, capsys):
    save_model(tmp_path, generator.model, tokenizer)
    ids = tokenizer.encode("the cat")
    common = ["generate", "--checkpoint", str(tmp_path), "--max-new-tokens", "9", "--seed", "3"]
    expected = "the cat" + generator.generate("the cat", 9, seed=3)
    for flags in (["--prompt", "the cat"], ["--prompt-tokens", " ".join(map(str, ids))]):
        assert main([*common, *flags]) == 0
        assert capsys.readouterr().out == expected + "\n"
    assert main([*common, "--prompt-tokens", ",".join(map(str, ids)), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["prompt"], record["prompt_tokens"]) == ("the cat", ids)
    assert main([*common, "--prompt", ""]) == 0
    assert capsys.readouterr().out == generator.generate("", 9, seed=3) + "\n"
    assert main([*common, "--prompt", "", "--ignore-end", "--html", str(tmp_path / "p.html")]) == 0
    expected = generator.generate("", 9, seed=3, stop_at_end=False)
    assert capsys.readouterr().out == expected + "\n"
    assert main([*common, "--prompt-tokens", "1 x"]) == 1
    assert "--prompt-tokens takes token ids" in capsys.readouterr().err


def test_a_file_that_puts_a_token_before_every_text(generator, tokenizer, tmp_path):
    content = json.loads(tokenizer.save(tmp_path).read_text(encoding="utf-8"))
    end = tokenizer.end_token
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": END}}, {"Sequence": {"id": "A"}}],
        "special_tokens": {END: {"id": END, "ids": [end], "tokens": [END]}},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    framed = Generator(generator.model, BPETokenizer.load(tmp_path))
    expected = generator.generate([end, *tokenizer.encode("the")], 9, seed=4)
    assert framed.generate("the", 9, seed=4) == expected


def test_the_files_that_are_ready_to_use_are_enough(tmp_path, capsys):
    from tests.tinyalpaca.runs import train, write_text

    train(tmp_path / "run", write_text(tmp_path), {"pre_norm": True, "bias": False}, epochs=1)
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in ("model.safetensors", "config.json", "tokenizer.json", "SHA256SUMS"):
        (alone / name).write_bytes((tmp_path / "run" / name).read_bytes())
    common = ["--checkpoint", str(alone)]
    assert main(["generate", *common, "--prompt", "the", "--max-new-tokens", "3"]) == 0
    assert main(["evaluate", *common, "--text", "the king speaks"]) == 0
    assert main(["convert", str(alone), str(tmp_path / "weights.safetensors"), "--to", "torch"])
    text = tmp_path / "text.txt"
    tokens = ["--tokenizer", str(alone), "--out", str(tmp_path / "t.tokens")]
    assert main(["tokenize", "encode", str(text), *tokens]) == 0
    capsys.readouterr()
    (alone / "tokenizer.json").unlink()
    assert main(["generate", *common]) == 1
    assert "tokenizer.json" in capsys.readouterr().err


def test_end_tokens_that_a_models_maker_has_named(generator, tokenizer, tmp_path):
    """One text, many together and a stream end there, and a saved model keeps these tokens."""
    seeds = list(range(12))
    free = generator.generate(["the"] * 12, 20, seed=seeds, return_logprobs=True)
    drawn = [token for one in free for token in one.tokens if token != tokenizer.end_token]
    end = max(set(drawn), key=drawn.count)
    save_model(tmp_path, generator.model, tokenizer)
    before = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert "end_tokens" not in before and load_model(tmp_path).model.end_tokens == ()
    other = load_model(tmp_path).model
    other.end_tokens = (end,)
    save_model(tmp_path, other, tokenizer)
    ending = Generator.from_checkpoint(tmp_path)
    assert ending.ends() == [tokenizer.end_token, end]
    ended = ending.generate(["the"] * 12, 20, seed=seeds, return_logprobs=True)
    for whole, cut, seed in zip(free, ended, seeds, strict=True):
        stops = [n for n, token in enumerate(whole.tokens) if token == end]
        assert cut.tokens == whole.tokens[: stops[0] + 1 if stops else None]
        assert not stops or cut.text == tokenizer.decode(cut.tokens[:-1])
        assert "".join(ending.stream("the", 20, seed=seed)) == cut.text
    assert len(drawn) > sum(len(cut.tokens) for cut in ended) + 20
    for wrong in ([tokenizer.vocab_size], [True], 5, [-1], "a"):
        content = json.dumps({**before, "end_tokens": wrong})
        (tmp_path / "config.json").write_text(content, encoding="utf-8")
        (tmp_path / "SHA256SUMS").unlink(missing_ok=True)
        with pytest.raises(FileFormatError, match="end_tokens must be"):
            load_model(tmp_path)
