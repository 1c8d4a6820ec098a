"""What the README shows runs, and the commands that it names are there."""

import json
import re
import warnings
from pathlib import Path

import pytest

from tinyalpaca.cli import COMMANDS, main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def write_book(folder):
    """The text that the second example learns."""
    words = ("the king", "and", "the queen", "speak", "no more,\n", "thou")
    text = " ".join(words[n * n % 7 % 6] for n in range(3000))
    (folder / "my_book.txt").write_text(text, encoding="utf-8")


# A model of one's own writes its samples without our faster copies, which is announced.
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


def test_the_training_runs_in_a_notebook(tmp_path, monkeypatch):
    """Its cells are what the README shows, the same again to go on, and a look at what is saved."""
    nbclient = pytest.importorskip("nbclient", reason='no nbclient: pip install -e ".[bench]"')
    pytest.importorskip("ipykernel", reason='no ipykernel: pip install -e ".[bench]"')
    import nbformat

    training = blocks("python")[1].replace("epochs=3", "epochs=1")
    again = training.replace("hooks=[Tell()])", "hooks=[Tell()], resume=True)")
    again = again.replace("epochs=1", "epochs=2")
    look = "type(model).__name__, run.state.epoch, tokenizer.vocab_size == model.config.vocab_size"
    cells = [nbformat.v4.new_code_cell(code) for code in (training, again, look)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    write_book(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Jupyter's own
        client = nbclient.NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}})
        client.execute()  # an exception in a cell is one here

    def printed(cell, name="stdout"):
        streams = (o for o in cell.outputs if o.output_type == "stream" and o.name == name)
        return "".join(stream.text for stream in streams)

    first, second = (printed(cell).splitlines() for cell in notebook.cells[:2])
    assert len(first) == len(second) == 2 and first[1].startswith("Best validation")
    (step, loss), (later, lower) = (map(float, line.split()) for line in (first[0], second[0]))
    assert later == 2 * step and lower < loss
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


@pytest.mark.parametrize("line", [x for block in blocks("bash") for x in block.splitlines()])
def test_flags_that_the_readme_uses_are_known(line, capsys):
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
