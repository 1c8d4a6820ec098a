"""The short programs on minigrad alone do what they say."""

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


def test_newton_finds_the_minimum():
    found = runpy.run_path(str(EXAMPLES / "newton.py"))["main"]()
    np.testing.assert_allclose(found, [1.0, 1.0], atol=1e-9)
