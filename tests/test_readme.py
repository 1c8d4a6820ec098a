"""The code and commands of the README and the guide run, and the files they name exist."""

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from functools import reduce
from pathlib import Path
from statistics import mean, stdev

import pytest

from examples.guide import picture
from tinyalpaca.cli import COMMANDS, main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS_PAGE = (ROOT / "examples/guide/runs.md").read_text(encoding="utf-8")


def blocks(language, text=README):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


COMMAND_LINES = [
    line for block in blocks("bash", README + COMMANDS_PAGE) for line in block.splitlines()
]


def write_book(folder):
    """Write the text that the second example learns."""
    words = ("the king", "and", "the queen", "speak", "no more,\n", "thou")
    text = " ".join(words[n * n % 7 % 6] for n in range(1000))
    (folder / "my_book.txt").write_text(text, encoding="utf-8")


# Your own model writes samples without our faster copies of the forward pass, with a warning.
@pytest.mark.filterwarnings("ignore::minigrad.errors.KernelFallbackWarning")
def test_the_python_examples_run(capsys, tmp_path, monkeypatch):
    engine, training = blocks("python")
    exec(compile(engine, "README.md", "exec"), {})
    assert "Tensor([[ 6." in capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    write_book(tmp_path)
    program = compile(training, "README.md", "exec")
    exec(program, {"__name__": "readme"})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and lines[-1].startswith("Best validation")
    assert len(training.split("config = ")[1].splitlines()) < 15
    again = training.replace("hooks=[Tell()])", "hooks=[Tell()], resume=True)")
    exec(compile(again, "README.md", "exec"), {"__name__": "readme"})


EXECUTE = """
import sys
import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook).execute()
nbformat.write(notebook, sys.argv[1])
"""


def test_the_training_runs_in_a_notebook(tmp_path, monkeypatch):
    """The cells are the README's code, the same again to resume, and a check of the saved files."""
    if not all(importlib.util.find_spec(needed) for needed in ("nbclient", "ipykernel")):
        pytest.skip('what runs notebooks is not installed: pip install -e ".[bench]"')
    import nbformat

    training = blocks("python")[1].replace("epochs=3", "epochs=1")
    again = training.replace("hooks=[Tell()])", "hooks=[Tell()], resume=True)")
    again = again.replace("epochs=1", "epochs=2")
    look = "type(model).__name__, run.state.epoch, tokenizer.vocab_size == model.config.vocab_size"
    cells = [nbformat.v4.new_code_cell(code) for code in (training, again, look)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    write_book(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    path = tmp_path / "training.ipynb"
    nbformat.write(notebook, path)
    # In another process, because its imports would make this one a notebook too.
    command = [sys.executable, "-W", "ignore", "-c", EXECUTE, str(path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr  # not 0 after an exception in a cell
    notebook = nbformat.read(path, as_version=4)

    def printed(cell, name="stdout"):
        streams = (o for o in cell.outputs if o.output_type == "stream" and o.name == name)
        return "".join(stream.text for stream in streams)

    first, second = (printed(cell).splitlines() for cell in notebook.cells[:2])
    assert len(first) == len(second) == 2 and first[1].startswith("Best validation")
    (step, loss), (later, lower) = (map(float, line.split()) for line in (first[0], second[0]))
    assert later == 2 * step and lower < loss
    assert "ipykernel" not in sys.modules
    assert "'Halved', 2, True" in notebook.cells[2].outputs[0].data["text/plain"]
    config = json.loads((tmp_path / "runs/mine/config.json").read_text(encoding="utf-8"))
    assert config["own"] == {"model": "Halved", "optimizer": config["own"]["optimizer"]}
    assert config["own"]["optimizer"].startswith("SGD(lr=0.1, momentum=0.9")
    assert config["training"]["out"].endswith("runs/mine") and config["training"]["epochs"] == 2


def test_both_commands_do_their_own_set_up():
    for heading in ("### Train it", "### Test it"):
        line = README.split(heading)[1].split("```bash\n")[1].split("\n")[0]
        assert line.startswith("python3 -m venv .venv && .venv/bin/pip install")


def test_paths_that_the_readme_names_exist():
    named = re.findall(r"(?:minigrad|tinyalpaca|examples|tests)/[\w./-]*\w", README)
    assert len(named) > 8
    for path in named:
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_flags_that_are_used_are_known(line, capsys):
    words = line.split("#")[0].split()
    script = {"examples/train_shakespeare.py": "train", "examples/generate.py": "generate"}
    command = next((script[w] for w in words if w in script), None)
    if "tinyalpaca" in line and command is None:
        command = words[words.index(".venv/bin/tinyalpaca") + 1]
    if command is None:
        return
    assert command in COMMANDS
    with pytest.raises(SystemExit):
        main([command, "--help"])
    known = capsys.readouterr().out
    after = line.split(".py" if ".py" in line else command)[-1]
    for flag in re.findall(r"--[\w-]+", after):
        assert flag in known, flag


# The numbers of the table "Measured": for each row the record, the place in it, and the unit.
ROWS = {
    "a training step, 236 thousand": ("seed", "ours_ms", "peer_ms", "ratio"),
    "the same, 0.8 million": ("medium", "ours_ms", "peer_ms", "ratio"),
    "the same, 10.8 million": ("large", "ours_ms", "peer_ms", "ratio"),
    "the first of them beside JAX": ("seed_jax", "ours_ms", "peer_ms", "ratio"),
    "one epoch of the default": ("end_to_end", "ours_ms", "peer_ms", "ratio"),
    "writing one text": ("generate", "ours_tokens_per_s", "peer_tokens_per_s", "ratio"),
    "writing with GPT-2's shape": (
        "gpt2",
        "contenders.ours.tokens_per_s",
        "contenders.torch compiled.tokens_per_s",
        "ratio",
    ),
    "learning 1,000 merges": ("tokenizer", "train.ours_ms", "train.peer_ms", "train.ratio"),
    "encoding 1.1 MB": ("tokenizer", "encode.ours_ms", "encode.peer_ms", "encode.ratio"),
}


def number_in(text):
    """A number in a text, seconds as milliseconds, and half a unit of its last digit."""
    shown = re.search(r"[\d,]+(?:\.\d+)?", text)[0].replace(",", "")
    unit = 1000 if re.search(r"\d s$", text) else 1
    places = len(shown.partition(".")[2])
    return float(shown) * unit, 0.5001 * 10**-places * unit


def test_every_number_of_the_table_is_that_of_its_record():
    table = README.split("## Measured")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")][
        1:
    ]
    assert len(rows) == len(ROWS)
    for row in rows:
        [(name, *keys)] = [where for what, where in ROWS.items() if row[0].startswith(what)]
        assert f"tests/benchmarks/results/{name}.json" in row[4]
        path = ROOT / f"tests/benchmarks/results/{name}.json"
        record = json.loads(path.read_text(encoding="utf-8"))
        for text, key in zip(row[1:4], keys, strict=True):
            value, allowed = number_in(text)
            true = reduce(lambda found, part: found[part], key.split("."), record)
            assert true == pytest.approx(value, abs=allowed), (row[0], key)


def trained(preset):
    """The record of a preset's three seeds, whose means and deviations are those of the seeds."""
    path = ROOT / f"tests/benchmarks/results/{preset}.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    for kind, score in record["nats_per_character"].items():
        seeds = [scored[kind] for scored in record["seeds"].values()]
        assert len(seeds) == 3 and score == pytest.approx(mean(seeds), abs=1e-4)
        assert record["standard_deviation"][kind] == pytest.approx(stdev(seeds), abs=1e-4)
    return record


@pytest.mark.parametrize("preset", ["best", "baby-gpt"])
def test_scores_of_a_preset_are_those_of_its_record(preset):
    record = trained(preset)
    scores, spread = record["nats_per_character"], record["standard_deviation"]
    [row] = [line for line in README.splitlines() if line.startswith(f"| `{preset}` |")]
    assert f" {record['parameters']:,} " in row
    for kind, score in scores.items():
        assert f"**{score:.3f}** ± {spread[kind]:.3f}" in row


def test_scores_of_best_are_said_wherever_the_readme_speaks_of_it():
    record = trained("best")
    scores, first = record["nats_per_character"], record["seeds"]["0"]
    for shown in (f"{scores['apart']:.3f} nats a character", f"{scores['sliding']:.3f} with"):
        assert shown in README
    said = f"{first['apart']:.4f} nats per character; {first['sliding']:.4f} with windows"
    assert said in README


def test_what_the_default_setting_writes_is_that_of_its_record():
    path = ROOT / "tests/benchmarks/results/original.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    assert f"ends at {record['nats_per_character']['apart']:.3f} nats a character" in README
    shown = README.split("results/original.json)):\n\n```text\n")[1].split("\n```")[0]
    *lines, sample = shown.split("\n", 3)
    assert [line.removesuffix(" | ...") for line in lines[:2]] == record["epoch_lines"]
    assert record["sample"].startswith(sample) and len(sample) > 80
    command = record["sample_command"].removeprefix("python ")
    assert command in README


def test_the_picture_is_that_of_its_record_and_so_is_the_sample():
    record = json.loads(picture.RECORD.read_text(encoding="utf-8"))
    again = picture.drawn(record)
    assert picture.PICTURE.read_text(encoding="utf-8") == again, "draw it from its record again"
    sample = README.split("At 1.45 it writes:\n\n```text\n")[1].split("\n```")[0]
    assert "".join(text for text, _ in record["tokens"]).startswith(sample)


def anchors_of(text):
    """The anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}


def test_links_within_the_readme_lead_somewhere():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if target.startswith("#"):
            assert target[1:] in anchors_of(README), target
        elif "://" not in target:
            path, _, anchor = target.partition("#")
            page = ROOT / path
            assert page.exists(), target
            assert not anchor or anchor in anchors_of(page.read_text(encoding="utf-8")), target


SMALL = {
    **{"--max-steps": "2", "--d-model": "16", "--d-ff": "16", "--num-heads": "2"},
    **{"--num-layers": "1", "--num-merges": "5", "--batch-size": "2", "--sample-tokens": "3"},
    **{"--epoch-sample-tokens": "0", "--workers": "1"},
}
SIZES = {"--d-model", "--d-ff", "--num-heads", "--num-layers", "--num-merges"}


@pytest.mark.slow
def test_every_command_runs(tmp_path, monkeypatch):
    """In a temporary folder, with a small text and model; commands for a GPU or MPI are skipped."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    text = "the king and the queen speak no more,\nthou art\n" * 300
    for name in ("my_book.txt", "shakespeare.txt"):
        (tmp_path / name).write_text(text, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    environment |= {"TINYSHAKESPEARE": str(tmp_path / "shakespeare.txt")}
    lines = [line.split(" #")[0] for line in COMMAND_LINES]
    ran = 0
    for line in lines:
        line = line.rpartition("&& ")[2]  # without the command that makes an environment
        words = shlex.split(re.sub(r"\$'(.*?)\\n'", r"'\1'", line))
        if any(w in line for w in ("pip install", "-m pytest", "--device gpu", "mpirun")):
            continue
        if words[0].endswith("tinyalpaca"):
            words[:1] = [sys.executable, "-m", "tinyalpaca"]
        else:
            words[0] = sys.executable
        if "train_shakespeare.py" in line or " sweep " in line:
            for flag, value in SMALL.items():
                if flag not in words and not ("--init-from" in words and flag in SIZES):
                    words += [flag, value]
            words += ["--no-preflight"]
        if "tinyalpaca play" in line:
            words += ["--help"]
        done = subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, input=""
        )
        assert done.returncode == 0, (line, done.stderr[-2000:])
        ran += 1
    assert ran >= 10
