"""The short programs do what they say."""

import runpy
from pathlib import Path

import numpy as np

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_fit_a_curve_learns_the_curve(capsys):
    assert runpy.run_path(str(EXAMPLES / "fit_a_curve.py"))["main"]() < 1e-3
    assert "gradients proved" in capsys.readouterr().out


def test_an_op_of_ones_own_and_its_kernel_are_proved(capsys):
    runpy.run_path(str(EXAMPLES / "your_own_op.py"))
    assert "the gradient and the kernel are right" in capsys.readouterr().out
    lines = (EXAMPLES / "your_own_op.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) < 40


def test_a_transformer_is_trained_by_hand(capsys, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("to be, or not to be: that is the question.\n" * 60, encoding="utf-8")
    path = EXAMPLES / "train_by_hand.py"
    score = runpy.run_path(str(path))["main"](40, str(text), batch_size=4, time=16)
    assert score < 2.0  # ln V is 2.9
    assert "step   40  training" in capsys.readouterr().out
    loop = path.read_text(encoding="utf-8").split("def main")[1].split("if __name__")[0]
    assert len(loop.splitlines()) <= 45


def test_newton_finds_the_minimum():
    found = runpy.run_path(str(EXAMPLES / "newton.py"))["main"]()
    np.testing.assert_allclose(found, [1.0, 1.0], atol=1e-9)
