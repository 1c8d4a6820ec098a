"""The most likely mistakes of a newcomer, and what is said: the cause, and the mend.

Each line is a mistake as one makes it, the error, and words of its message that name both.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn, optim
from minigrad.nn import functional as F
from tinyalpaca import (
    BPETokenizer,
    CharTokenizer,
    Generator,
    ModelConfig,
    TinyAlpaca,
    TrainConfig,
    load,
    train,
)
from tinyalpaca.cli import main

RNG = mg.Generator(0)
ROWS = mg.Tensor(np.ones((2, 3), np.float32))
SIZES = {"vocab_size": 5, "d_model": 8, "d_ff": 8, "num_heads": 2, "num_layers": 1}


def leaf() -> mg.Tensor:
    return mg.Tensor([1.0, 2.0], requires_grad=True)


def model() -> TinyAlpaca:
    return TinyAlpaca(ModelConfig(**SIZES, max_seq_len=8), RNG)


def writer() -> Generator:
    tokenizer = CharTokenizer.train("abcde")
    return Generator(model(), tokenizer)


def twice_back() -> None:
    loss = (leaf() ** 2).sum()
    loss.backward()
    loss.backward()


def written_between() -> None:
    x = leaf()
    loss = (x * x).sum()
    x.data[0] = 5
    loss.backward()


class WithList(nn.Module):
    def __init__(self) -> None:
        self.layers = [nn.Linear(2, 2, rng=RNG)]


MISTAKES: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    # shapes
    "factors in the wrong order": (lambda: ROWS @ ROWS, mg.ShapeError, r"\(3\).*\(2\); .T or"),
    "shapes that do not broadcast": (
        lambda: ROWS + mg.ones((2, 4)),
        mg.ShapeError,
        r"add of shapes \(2, 3\) and \(2, 4\).*equal or 1, counted from the last",
    ),
    "a layer of another width": (
        lambda: nn.Linear(4, 2, rng=RNG)(ROWS),
        mg.ShapeError,
        r"x of shape \(2, 3\) does not fit weight of shape \(2, 4\): the last axis of x",
    ),
    "lists of several lengths": (
        lambda: mg.Tensor([[1.0], [1.0, 2.0]]),
        ValueError,
        "equal lengths .* pad the shorter",
    ),
    "item() of several": (
        lambda: leaf().item(),
        ValueError,
        r"single element, the shape is \(2,\)",
    ),
    "if tensor > 0": (lambda: bool(leaf() > 0), ValueError, r"ambiguous; use .any\(\) or .all\(\)"),
    # gradients
    "integers that want gradients": (
        lambda: mg.Tensor([1, 2], requires_grad=True),
        TypeError,
        r"defined for floats. Convert it with .astype\('float32'\)",
    ),
    "backward of a vector": (lambda: (leaf() * 2).backward(), ValueError, r"example with .sum\(\)"),
    "backward of what needs none": (
        lambda: ROWS.sum().backward(),
        ValueError,
        "no input of its ops had requires_grad=True",
    ),
    "backward twice": (twice_back, mg.GraphFreedError, "forward pass again, or pass retain_graph"),
    "an update outside of no_grad": (
        lambda: leaf().__isub__(1),
        mg.InPlaceError,
        r"cannot be changed in place.*with minigrad.no_grad\(\)",
    ),
    "a write between forward and backward": (
        written_between,
        mg.InPlaceError,
        "changed in place after the forward pass.*change a copy",
    ),
    "an array of a tensor in a graph": (
        lambda: np.asarray(leaf() * 2),
        TypeError,
        r".numpy\(\) gives the array and .detach\(\)",
    ),
    "gradcheck in float32": (
        lambda: mg.gradcheck(lambda x: x * x, [leaf()]),
        TypeError,
        r"need float64: make it with dtype='float64'",
    ),
    # names from PyTorch
    "x.cuda()": (lambda: ROWS.cuda(), AttributeError, r'is here \.to\("gpu"\)'),
    "x.view()": (lambda: ROWS.view(6), AttributeError, r"is here \.reshape\(shape\)"),
    "device mps": (lambda: ROWS.to("mps"), mg.DeviceError, 'use "cpu", "gpu" or "gpu:1"'),
    # layers and optimizers
    "a seed for rng": (
        lambda: nn.Linear(2, 2, rng=0),
        TypeError,
        r"not int: rng=minigrad.Generator\(0\)",
    ),
    "NumPy's generator for rng": (
        lambda: nn.Embedding(2, 2, rng=np.random.default_rng(0)),
        TypeError,
        "rng must be a minigrad.Generator",
    ),
    "layers in a list": (
        lambda: list(WithList().parameters()),
        TypeError,
        "plain list .* nn.ModuleList or nn.Sequential",
    ),
    "a model for its parameters": (
        lambda: optim.AdamW(nn.Linear(2, 2, rng=RNG), lr=1e-3),
        TypeError,
        r"not a Linear: pass model.parameters\(\)",
    ),
    "parameters without ()": (
        lambda: optim.AdamW(nn.Linear(2, 2, rng=RNG).parameters, lr=1e-3),
        TypeError,
        r"not a method: pass model.parameters\(\)",
    ),
    "arrays for parameters": (
        lambda: optim.SGD([np.ones(3)], lr=0.1),
        TypeError,
        r"must be tensors, not ndarray: pass model.parameters\(\)",
    ),
    "a learning rate of NaN": (
        lambda: optim.AdamW([leaf()], lr=float("nan")),
        ValueError,
        "lr must be a number, it is nan",
    ),
    "weights of another model": (
        lambda: nn.Linear(2, 3, rng=RNG).load_state_dict({"w": np.ones((3, 2))}),
        ValueError,
        r"missing: weight \(3, 2\)[\s\S]*unexpected: w",
    ),
    "a label too many": (
        lambda: F.cross_entropy(ROWS, np.array([0, 3])),
        IndexError,
        r"id 3 is out of range .*\(0 to 2\); a target is the number of its class",
    ),
    "labels of floats": (
        lambda: F.cross_entropy(ROWS, np.array([0.0, 1.0])),
        TypeError,
        r"must be integers, not float64: .astype\('int64'\)",
    ),
    # the language model
    "ids beyond the vocabulary": (lambda: model()(np.array([[7]])), IndexError, r"\(0 to 4\)"),
    "a sequence too long": (
        lambda: model()(np.zeros((1, 9), np.int64)),
        mg.ShapeError,
        r"9 tokens is longer than max_seq_len \(8\): shorten it",
    ),
    "heads that do not divide": (
        lambda: ModelConfig(d_model=30, num_heads=4),
        ValueError,
        r"d_model \(30\) must be divisible by num_heads \(4\)",
    ),
    "a setting's name from elsewhere": (
        lambda: TrainConfig(lr=1e-3),
        ValueError,
        "no setting 'lr'; did you mean learning_rate",
    ),
    "a setting's name misspelt": (
        lambda: ModelConfig(num_layer=3),
        ValueError,
        "did you mean num_layers",
    ),
    "a number in quotes": (
        lambda: TrainConfig(epochs="3"),
        ValueError,
        "epochs must be int, not '3'",
    ),
    "a rate of NaN in training": (
        lambda: TrainConfig(learning_rate=float("nan")),
        ValueError,
        "learning_rate must be positive, it is nan",
    ),
    "a file's name for its text": (
        lambda: BPETokenizer.train("book.txt", progress=False),
        ValueError,
        r"name of a file, not its text: give pathlib.Path\('book.txt'\)",
    ),
    "a character that was never seen": (
        lambda: CharTokenizer.train("abc").encode("xyz"),
        ValueError,
        "'x' at position 0 was not in the text.*BPETokenizer takes any text",
    ),
    "an empty prompt": (lambda: writer().generate(""), ValueError, "needs at least one token"),
    "a negative temperature": (
        lambda: writer().generate("a", temperature=-1),
        ValueError,
        "temperature must be a number and not negative, it is -1",
    ),
    "a folder without a model": (
        lambda: load("no/such/run"),
        FileNotFoundError,
        r"no trained model \(config.json is missing\). Train one with",
    ),
    "a text that is not there": (
        lambda: train(TrainConfig(data="no_book.txt")),
        FileNotFoundError,
        "no file or folder no_book.txt.*the named ones are tinyshakespeare",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_message_names_the_cause_and_the_mend(
    mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make, error, words = MISTAKES[mistake]
    with pytest.raises(error, match=words):
        make()


def test_there_are_thirty_and_more() -> None:
    assert len(MISTAKES) >= 30


@pytest.mark.parametrize(
    ("content", "words"),
    [("to be", "use a longer text"), ("", "the text is empty")],
)
def test_a_text_too_short_to_learn(tmp_path: Path, content: str, words: str) -> None:
    text = tmp_path / "text.txt"
    text.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=f"(?i){words}"):
        train(TrainConfig(data=str(text), out=str(tmp_path / "run"), quiet=True))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train --lr 3", "unrecognized arguments: --lr 3; did you mean --learning-rate?"),
        ("train --learning-rat abc", "invalid float value: 'abc'"),
        ("train --tokens-per-step 3", "--help after a command lists its flags"),
        ("generate --tempreature 3", "did you mean --temperature?"),
        ("trian", "choose from 'train', 'generate'"),
        ("train --preset bset", "choose from 'original', 'best'"),
    ],
)
def test_a_wrong_flag(command: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(command.split())
    assert words in capsys.readouterr().err


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(mg.DeviceError, match=r'pip install -e "\.\[cuda13\]"'):
        mg.Tensor([1.0]).to("gpu")
