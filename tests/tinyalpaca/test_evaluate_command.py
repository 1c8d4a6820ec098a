import io
import json

import pytest

from tests.tinyalpaca.tiny_models import TEXT, tiny_generator
from tinyalpaca import cli
from tinyalpaca.checkpoint import save_model


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
