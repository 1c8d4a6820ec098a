"""Error messages name only code that exists."""

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from functools import reduce
from pathlib import Path

import numpy as np

import minigrad as mg
from minigrad import nn, optim

ROOT = Path(mg.__file__).parent
# `minigrad.where`, `functional.jacobian`: dotted names of ours
DOTTED = re.compile(r"\b(minigrad|mg|functional|nn|optim)((?:\.[A-Za-z_]\w*)+)")
# `.astype(`, `no_grad()`, `value.detach()`: calls and methods
CALL = re.compile(r"(?<![\w.])((?:[A-Za-z_]\w*\.)*|\.)([A-Za-z_]\w*)\((?!s\))")
# Names from PyTorch and NumPy in messages about their files and arrays.
OF_OTHERS = {"filled", "clone", "resolve_conj", "resolve_neg", "save", "load", "any", "all"}
WORDS = {"f", "e", "exp", "lr"}


def messages() -> Iterator[tuple[str, str]]:
    """Place and text of each error that minigrad raises; `{}` stands for inserted values."""
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                for argument in node.exc.args:
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", text_of(argument)


def text_of(node: ast.AST) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(
            text_of(part) if isinstance(part, ast.Constant) else "{}" for part in node.values
        )
    if isinstance(node, ast.BinOp):
        return text_of(node.left) + text_of(node.right)
    return "{}"


def known_names() -> set[str]:
    """Public names of all modules of minigrad, and of its objects' attributes."""
    names: set[str] = set()
    for found in pkgutil.walk_packages([str(ROOT)], "minigrad."):
        if "cuda" not in found.name:
            names |= set(vars(importlib.import_module(found.name)))
    for kind in (mg.Tensor, nn.Module, optim.Optimizer, np.ndarray, mg.Generator):
        names |= set(dir(kind))
    return names


def test_names_in_messages_exist() -> None:
    found = list(messages())
    assert len(found) > 200
    known, checked = known_names(), 0
    for where, text in found:
        for root, path in DOTTED.findall(text):
            start = {"minigrad": mg, "mg": mg}.get(root) or getattr(mg, root)
            try:
                reduce(getattr, path[1:].split("."), start)
            except AttributeError:
                raise AssertionError(f"{where}: there is no {root}{path}: {text}") from None
            checked += 1
        for _, name in CALL.findall(text):
            if name not in OF_OTHERS | WORDS:
                assert name in known, f"{where}: there is no {name}(): {text}"
                checked += 1
    assert checked > 40, "and the patterns find them"
