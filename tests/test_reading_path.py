"""The reading path in the README: a few files, in an order in which they can be read."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST_LINES = 2500
# The themes of the path, from a tensor to a trained transformer.
THEMES = {
    *("tensor", "op", "graph", "engine", "backward_pass"),
    *("linear", "layer_norm", "attention", "cross_entropy", "embedding"),
    *("module", "layers", "adamw", "model", "steps", "loop"),
}


def path() -> list[str]:
    """The files that the README names, in its order."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.partition("### A reading path")[2].partition("\n## ")[0]
    lines = re.findall(r"^(\d+)\. `([\w/]+\.py)`", section, re.M)
    assert [int(number) for number, _ in lines] == list(range(1, len(lines) + 1))
    return [file for _, file in lines]


def test_it_is_short() -> None:
    lines = {file: len((ROOT / file).read_text(encoding="utf-8").splitlines()) for file in path()}
    assert sum(lines.values()) <= MOST_LINES, lines


def test_it_leaves_nothing_out_and_says_nothing_twice() -> None:
    files = path()
    assert len(set(files)) == len(files)
    assert {Path(file).stem for file in files} >= THEMES
