"""What the README shows runs, and the commands that it names are there."""

import re
from pathlib import Path

import pytest

from tinyalpaca.cli import COMMANDS, main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


# A model of one's own writes its samples without our faster copies, which is announced.
@pytest.mark.filterwarnings("ignore::minigrad.errors.KernelFallbackWarning")
def test_the_python_examples_run(capsys, tmp_path, monkeypatch):
    engine, training = blocks("python")
    exec(compile(engine, "README.md", "exec"), {})
    assert "Tensor([[ 6." in capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    words = ("the king", "and", "the queen", "speak", "no more,\n", "thou")
    text = " ".join(words[n * n % 7 % 6] for n in range(3000))
    Path("my_book.txt").write_text(text, encoding="utf-8")
    program = compile(training, "README.md", "exec")
    exec(program, {"__name__": "readme"})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and lines[-1].startswith("Best validation")
    assert len(training.split("config = ")[1].splitlines()) < 15
    again = training.replace("hooks=[Tell()])", "hooks=[Tell()], resume=True)")
    exec(compile(again, "README.md", "exec"), {"__name__": "readme"})


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
