"""The short programs give the results that they document, with and without `--quick`."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
# These are commands, or programs for several machines.
COMMANDS = {"train_shakespeare", "generate", "train_on_many_machines", "scaling_model"}
PROGRAMS = sorted(p.stem for p in EXAMPLES.glob("*.py") if p.stem not in COMMANDS)
NEEDS = {"digits": "sklearn", "numpy_in_numpy_out": "scipy"}


def main_of(name):
    """An example's `main`; the test is skipped with a reason if a package is missing."""
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason=f"{NEEDS[name]} is not installed")
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]


LONGER = {"attention_maps", "digits", "finetune"}


@pytest.mark.parametrize(
    "name", [pytest.param(p, marks=[pytest.mark.slow] * (p in LONGER)) for p in PROGRAMS]
)
def test_each_is_short_and_runs_with_quick(name, capsys, tmp_path, monkeypatch):
    path = EXAMPLES / f"{name}.py"
    assert len(path.read_text(encoding="utf-8").splitlines()) < 100
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason=f"{NEEDS[name]} is not installed")
    text = tmp_path / "text.txt"
    text.write_text("to be, or not to be: that is the question.\n" * 60, encoding="utf-8")
    monkeypatch.setenv("TINYSHAKESPEARE", str(text))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(path), "--quick"])
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out.strip()


def test_xor_is_learned_from_scratch(capsys):
    assert main_of("xor_from_scratch")() < 0.01
    out = capsys.readouterr().out
    assert "0 xor 1 = 0.99" in out and "1 xor 1 = 0.00" in out
    source = (EXAMPLES / "xor_from_scratch.py").read_text(encoding="utf-8")
    assert "nn" not in source.split('"""')[2] and "optim" not in source.split('"""')[2]


@pytest.mark.slow
def test_digits_are_told_apart():
    assert min(main_of("digits")().values()) > 0.98


def test_the_tour_finds_each_slip():
    assert main_of("gradcheck_tour")(True) == [True, False, False, True, True]


def test_attention_finds_the_mirror():
    assert main_of("attention_maps")(200) > 0.9


def test_newtons_method_is_quicker_and_most_directions_are_flat():
    newton, descent, eigenvalues = main_of("second_derivatives")(True)
    assert newton < 10 < 100 < descent
    assert np.median(np.abs(eigenvalues)) < 0.1 < eigenvalues.max()


def test_a_chain_hangs_alike_on_both_sides():
    hanging = main_of("numpy_in_numpy_out")(12)
    np.testing.assert_allclose(hanging[:, 0], -hanging[::-1, 0], atol=1e-3)
    assert hanging[:, 1].argmin() in (5, 6) and hanging[:, 1].max() < 0


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
