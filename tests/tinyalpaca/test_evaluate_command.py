import io
import json

import numpy as np
import pytest

from tests.tinyalpaca.tiny_models import TEXT, tiny_generator, tiny_model, tiny_tokenizer
from tinyalpaca import cli
from tinyalpaca.data import SEPARATOR
from tinyalpaca.evaluation import evaluation_batches
from tinyalpaca.runs import save_model
from tinyalpaca.tokenizer import BPETokenizer


@pytest.fixture
def generator(tmp_path):
    generator = tiny_generator()
    save_model(tmp_path, generator.model, generator.tokenizer)
    return generator


def evaluate(capsys, tmp_path, *arguments):
    status = cli.main(["evaluate", "--checkpoint", str(tmp_path), *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_figures_of_a_text(capsys, tmp_path, generator):
    status, out, _ = evaluate(capsys, tmp_path, "--text", TEXT)
    score = generator.score(TEXT)
    assert status == 0
    assert out.splitlines() == [
        f"the text given: {len(TEXT)} characters, {score.tokens} tokens predicted",
        f"nats per token      {score.nats_per_token:.4f}",
        f"bits per token      {score.bits_per_token:.4f}",
        f"nats per character  {score.nats_per_character:.4f}",
        f"bits per character  {score.bits_per_character:.4f}",
    ]


@pytest.mark.parametrize("stride", [0, 3])
@pytest.mark.parametrize(("part", "cut"), [("all", 0), ("training", 0), ("validation", 450)])
def test_parts_of_a_file_as_json(capsys, tmp_path, generator, part, cut, stride):
    text = (TEXT * 10)[:500]
    file = tmp_path / "text.txt"
    file.write_text(text, encoding="utf-8")
    arguments = ["--part", part, "--stride", stride, "--json", "--batch-size", 4]
    status, out, _ = evaluate(capsys, tmp_path, file, *arguments)
    wanted = text[:450] if part == "training" else text[cut:]
    score = generator.score(wanted, stride=stride)
    record = json.loads(out)
    assert status == 0
    assert record["characters"] == len(wanted)
    assert record["tokens"] == score.tokens
    assert record["nats"] == pytest.approx(score.nats, rel=1e-6)
    assert record["bits_per_character"] == pytest.approx(score.bits_per_character, rel=1e-6)


def test_standard_input(capsys, tmp_path, generator, monkeypatch):
    stdin = io.TextIOWrapper(io.BytesIO(TEXT.encode()), encoding="utf-8")
    monkeypatch.setattr("sys.stdin", stdin)
    status, out, _ = evaluate(capsys, tmp_path, "-", "--json")
    assert status == 0
    assert json.loads(out)["nats"] == pytest.approx(generator.score(TEXT).nats, rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--text", "a"], "error: 1 token(s) give nothing to predict"),
        (["--text", TEXT, "--stride", "99"], "error: the stride must be"),
        (["--text", TEXT, "--batch-size", "0"], "error: --batch-size must be at least 1"),
        (["no-such-file.txt"], "error: there is no file or folder no-such-file.txt"),
    ],
)
def test_mistakes_are_one_line(capsys, tmp_path, generator, arguments, message):
    status, out, err = evaluate(capsys, tmp_path, *arguments)
    assert (status, out) == (1, "")
    assert err.startswith(message)


def test_a_folder_is_scored_as_training_sees_it(capsys, tmp_path):
    """The end token, not its name in letters, is between texts, and counts as no character."""
    special = BPETokenizer.train(TEXT, num_merges=5, special_tokens=[SEPARATOR], progress=False)
    model = tiny_model(special.vocab_size)
    texts = tmp_path / "texts"
    texts.mkdir()
    parts = (TEXT, TEXT[:40], TEXT[7:])
    for number, part in enumerate(parts):
        (texts / f"{number}.txt").write_text(part, encoding="utf-8")
    for tokenizer, between in ((special, [special.end_token]), (tiny_tokenizer(5), [])):
        save_model(tmp_path, model, tokenizer)
        first, *others = map(tokenizer.encode, parts)
        ids = np.array(first + [token for ids in others for token in [*between, *ids]])
        nats = sum(
            model.loss(*batch, reduction="sum").item() for batch in evaluation_batches(ids, 11, 32)
        )
        status, out, error = evaluate(capsys, tmp_path, texts, "--json")
        record = json.loads(out)
        assert (status, record["tokens"]) == (0, len(ids) - 1)
        assert record["characters"] == sum(map(len, parts))
        assert record["nats"] == pytest.approx(nats, rel=1e-6)
        assert ("the 3 texts of 3 text files in" in error) == (not between)
