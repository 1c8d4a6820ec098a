"""The most likely mistakes of a newcomer, and their messages, which name cause and mend.

Each line has a mistake, the error's class, and words of its message that name cause and mend.
"""

import copy
import inspect
import pickle
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minigrad as mg
import minigrad.storage
import tinyalpaca
from minigrad import nn, optim
from minigrad.hints import FROM_PACKAGES, FROM_PYTORCH
from minigrad.nn import functional as F
from tinyalpaca import (
    BPETokenizer,
    CharTokenizer,
    Generator,
    Hook,
    ModelConfig,
    TinyAlpaca,
    TrainConfig,
    load,
    save,
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


def entered(block: Any) -> None:
    with block:
        pass


class WithList(nn.Module):
    def __init__(self) -> None:
        self.layers = [nn.Linear(2, 2, rng=RNG)]


class WithTensor(nn.Module):
    def __init__(self) -> None:
        self.scale = leaf()


def made(forward: Callable[..., Any], backward: Callable[..., Any]) -> Any:
    """A newcomer's op."""
    return type("Made", (mg.Op,), {"forward": forward, "backward": backward})


def book() -> TrainConfig:
    """Settings of a training on a text of its own, in the present folder."""
    Path("book.txt").write_text("to be or not to be, " * 200, encoding="utf-8")
    return TrainConfig(data="book.txt", out="run", quiet=True, workers=1, preflight=False)


def trained(*args: Any, **own: Any) -> None:
    """A training with a mistake, which is found before it begins."""
    train(*args, **own)


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
    "the gradient by an array": (
        lambda: mg.grad(leaf().sum(), np.ones(2)),
        TypeError,
        "grad: a Tensor is needed, not a float64",
    ),
    "functional.grad of a tensor": (
        lambda: mg.functional.grad(leaf()),
        TypeError,
        r"as in functional.grad\(f\)\(x\).*minigrad.grad\(y, x\) differentiates tensors",
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
    "x.sum(dim=0)": (lambda: ROWS.sum(dim=0), TypeError, "as NumPy does: axis= for dim="),
    "softmax(x, dim=-1)": (
        lambda: F.softmax(ROWS, dim=-1),
        TypeError,
        r"softmax\(\) names its arguments as NumPy does: axis= for dim=",
    ),
    "stack(..., dim=0)": (lambda: mg.stack([ROWS], dim=0), TypeError, "axis= for dim="),
    "x.mean(axis, keepdim=True)": (
        lambda: ROWS.mean(1, keepdim=True),
        TypeError,
        "keepdims= for keepdim=",
    ),
    "x.std(unbiased=False)": (
        lambda: ROWS.std(unbiased=False),
        TypeError,
        "ddof= for unbiased=",
    ),
    "an argument that nobody has": (lambda: ROWS.sum(dmi=0), TypeError, "unexpected .*'dmi'"),
    "torch.tensor": (
        lambda: mg.tensor([1.0]),
        TypeError,
        r"a module; .* made by minigrad.Tensor\(",
    ),
    "torch.device": (lambda: mg.device("cpu"), TypeError, r"made by minigrad.Device\("),
    "torch.cat": (lambda: mg.cat, AttributeError, r"is here minigrad.concatenate\(tensors, axis\)"),
    "torch.manual_seed": (
        lambda: mg.manual_seed(0),
        AttributeError,
        r"rng = minigrad.Generator\(seed\)",
    ),
    "nn.CrossEntropyLoss": (
        lambda: nn.CrossEntropyLoss(),
        AttributeError,
        r"is here nn.functional.cross_entropy\(logits, targets\)",
    ),
    "tensors that are not in a list": (
        lambda: mg.concatenate(ROWS, ROWS),
        TypeError,
        r"joins the tensors of one list: concatenate\(\[x, y\]\)",
    ),
    "a seed in quotes": (
        lambda: mg.Generator("0"),
        TypeError,
        "the seed must be a non-negative integer, not '0'",
    ),
    "model.cuda()": (
        lambda: nn.Linear(2, 2, rng=RNG).cuda(),
        AttributeError,
        r'called so elsewhere is here \.to\("gpu"\)',
    ),
    "model.save()": (
        lambda: nn.Linear(2, 2, rng=RNG).save("model"),
        AttributeError,
        r"minigrad.storage.save_safetensors\(model.state_dict\(\), path\)",
    ),
    "a model for its weights": (
        lambda: minigrad.storage.save_safetensors(nn.Linear(2, 2, rng=RNG), "model"),
        TypeError,
        r"a dict of arrays by name, such as model.state_dict\(\), not a Linear",
    ),
    "a width that is no integer": (
        lambda: nn.Linear("3", 2, rng=RNG),
        TypeError,
        "in_features must be an integer, not '3'",
    ),
    "an op without what it saves": (
        lambda: made(lambda xp, x: x * x, lambda xp, dy, x, needs: (dy,))(leaf()),
        TypeError,
        r"forward of the op 'Made' must return \(out, saved\)",
    ),
    "an op whose gradient is not in a tuple": (
        lambda: (
            made(lambda xp, x: (x * x, x), lambda xp, dy, x, needs: dy)(leaf()).sum().backward()
        ),
        TypeError,
        "backward of the op 'Made' must return a tuple .*its 1 inputs; it returned no tuple",
    ),
    "an op whose gradient has another shape": (
        lambda: (
            made(lambda xp, x: (x * x, x), lambda xp, dy, x, needs: (dy[0],))(leaf())
            .sum()
            .backward()
        ),
        mg.ShapeError,
        r"backward of the op 'Made': gradient \(\) for an input \(2,\)",
    ),
    "x.t()": (lambda: ROWS.t(), AttributeError, r"is here \.T"),
    "x.masked_fill()": (
        lambda: ROWS.masked_fill(ROWS > 0, 0),
        AttributeError,
        r"minigrad.where\(mask, value, x\)",
    ),
    "x.transpose(0, 1) of three axes": (
        lambda: mg.ones((2, 3, 4)).transpose(0, 1),
        mg.ShapeError,
        "swapaxes exchanges two axes",
    ),
    "a dtype for a device": (
        lambda: ROWS.to("float64"),
        mg.DeviceError,
        r"a dtype is changed with .astype\(dtype\)",
    ),
    "a shape for a dtype": (
        lambda: mg.Tensor(2, 3),
        TypeError,
        r"a dtype, not 3: minigrad.zeros\(shape\)",
    ),
    "device mps": (lambda: ROWS.to("mps"), mg.DeviceError, 'use "cpu", "gpu" or "gpu:1"'),
    # blocks, random numbers, and more names from elsewhere
    "with no_grad, without parentheses": (
        lambda: entered(mg.no_grad),
        TypeError,
        r"needs parentheses, as in `with minigrad.no_grad\(\):`",
    ),
    "with detect_nan, without parentheses": (
        lambda: entered(mg.detect_nan),
        TypeError,
        r"`with minigrad.detect_nan\(\):`",
    ),
    "the shape last, as in NumPy": (
        lambda: RNG.normal(0, 1, (2, 3)),
        TypeError,
        r"the shape comes first, then mean and std, as in normal\(\(2, 3\)",
    ),
    "bounds first, as in NumPy": (
        lambda: RNG.uniform(-0.1, 0.1, (2, 3)),
        TypeError,
        "the shape comes first, then low and high",
    ),
    "bounds in the wrong order": (
        lambda: RNG.uniform((2,), 1.0, -1.0),
        ValueError,
        r"low \(1.0\) is above high \(-1.0\)",
    ),
    "a chance in percent": (
        lambda: RNG.bernoulli((2,), 50),
        ValueError,
        "p is a probability, from 0 to 1, not 50",
    ),
    "a generator without a seed": (
        lambda: mg.Generator(None),
        TypeError,
        "the seed must be a non-negative integer, not None",
    ),
    "rng.choice()": (
        lambda: RNG.choice(5),
        AttributeError,
        r"NumPy's, which gives arrays, is .numpy.choice",
    ),
    "rng.randn()": (lambda: RNG.randn(5), AttributeError, r"it is .normal\(shape\)"),
    "a dtype's class for a device": (
        lambda: ROWS.to(np.float64),
        mg.DeviceError,
        r"a dtype is changed with .astype\(dtype\)",
    ),
    "x.uniform_()": (lambda: ROWS.uniform_(), AttributeError, r"\.assign\(rng.uniform"),
    "x.abs_()": (lambda: ROWS.abs_(), AttributeError, r"or x = x.abs\(...\)"),
    "torch.inference_mode": (
        lambda: mg.inference_mode(),
        AttributeError,
        r"is here minigrad.no_grad\(\)",
    ),
    "mg.Linear": (lambda: mg.Linear, AttributeError, "there is minigrad.nn.Linear"),
    "nn.SGD": (lambda: nn.SGD, AttributeError, "there is minigrad.optim.SGD"),
    "F.one_hot": (lambda: F.one_hot, AttributeError, r"minigrad.eye\(classes\)\[labels\]"),
    "optim.lr_scheduler": (
        lambda: optim.lr_scheduler,
        AttributeError,
        "minigrad.optim.StepLR",
    ),
    "None, of a forgotten return": (
        lambda: nn.Linear(2, 2, rng=RNG)(None),
        TypeError,
        "what a function without a return gives",
    ),
    "a gradient before there is one": (
        lambda: ROWS - leaf().grad,
        TypeError,
        r"which is what .grad is before backward\(\)",
    ),
    "grad of a function": (
        lambda: mg.grad(lambda x: x * x, leaf()),
        TypeError,
        r"minigrad.functional.grad\(f\)\(x\) is the gradient",
    ),
    "grad of a number": (
        lambda: mg.grad(3.0, leaf()),
        TypeError,
        "a Tensor is needed, not a float",
    ),
    "gradcheck of arrays": (
        lambda: mg.gradcheck(lambda x: x * x, [np.ones(2)]),
        TypeError,
        r"input 0 is no tensor but a ndarray: minigrad.Tensor\(values, dtype='float64'",
    ),
    "gradcheck of one tensor": (
        lambda: mg.gradcheck(lambda x: x * x, ROWS),
        TypeError,
        r"inputs come in a list: gradcheck\(f, \[x\]\)",
    ),
    "backward of an argmax": (
        lambda: mg.argmax(leaf()).backward(),
        ValueError,
        "what has no derivative, as argmax, round and comparisons",
    ),
    # layers and optimizers
    "one layer for a list": (
        lambda: nn.ModuleList(nn.Linear(2, 2, rng=RNG)),
        TypeError,
        r"a Linear is not iterable: give a list, as in ModuleList\(\[layer, layer\]\)",
    ),
    "nn.ReLU(inplace=True)": (
        lambda: nn.ReLU(inplace=True),
        TypeError,
        r"ReLU is made without inplace and then called: ReLU\(\)\(x\)",
    ),
    "nn.Tanh(x)": (lambda: nn.Tanh(ROWS), TypeError, r"without a Tensor and then called: Tanh"),
    "labels for logits": (
        lambda: F.cross_entropy(np.array([0, 1]), ROWS),
        mg.ShapeError,
        r"the logits come first, cross_entropy\(logits, targets\)",
    ),
    "one-hot integers": (
        lambda: F.cross_entropy(ROWS, np.eye(3, dtype=int)[:2]),
        mg.ShapeError,
        r"of one-hot rows give .argmax\(-1\), or probabilities as floats",
    ),
    "labels in a column": (
        lambda: F.cross_entropy(ROWS, np.array([[0], [1]])),
        mg.ShapeError,
        r"\.reshape\(-1\) or .squeeze\(-1\) takes the last axis away",
    ),
    "classes on the second axis": (
        lambda: F.cross_entropy(mg.ones((2, 5, 4)), np.zeros((2, 4), int)),
        mg.ShapeError,
        r"the logits' last axis; minigrad.moveaxis\(logits, 1, -1\) moves it",
    ),
    "labels of -1 and 1": (
        lambda: F.binary_cross_entropy_with_logits(leaf(), np.array([-1, 1])),
        ValueError,
        "a target is a probability, from 0 to 1, not -1",
    ),
    "learning_rate=": (
        lambda: optim.SGD([leaf()], learning_rate=0.1),
        TypeError,
        "it has params, lr, .*; did you mean lr?",
    ),
    "a setting of an optimizer misspelt": (
        lambda: optim.AdamW([leaf()], beta=(0.9, 0.99)),
        TypeError,
        "did you mean betas?",
    ),
    "an endless learning rate": (
        lambda: optim.SGD([leaf()], lr=float("inf")),
        ValueError,
        "lr must be finite, it is inf",
    ),
    "step(loss)": (
        lambda: optim.SGD([leaf()], lr=0.1).step(leaf().sum()),
        TypeError,
        r"takes no Tensor: call loss.backward\(\) and then step\(\)",
    ),
    "step(closure)": (
        lambda: optim.SGD([leaf()], lr=0.1).step(leaf),
        TypeError,
        r"takes no function: call loss.backward\(\) and then step\(\)",
    ),
    "clipping to a negative norm": (
        lambda: optim.clip_grad_norm_([leaf()], -1.0),
        ValueError,
        "max_norm must not be negative, it is -1.0",
    ),
    "a schedule of a number": (
        lambda: optim.StepLR(0.1, 10),
        TypeError,
        "the first argument is the optimizer whose learning rates it sets, not a float",
    ),
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
    "a layer without rng": (
        lambda: nn.Linear(2, 3),
        TypeError,
        r"'rng': the source of random numbers, rng=minigrad.Generator\(0\)",
    ),
    "an activation that is made of its input": (
        lambda: nn.GELU(ROWS),
        TypeError,
        r"GELU is made without a Tensor and then called: GELU\(\)\(x\)",
    ),
    "one-hot labels of too many classes": (
        lambda: F.cross_entropy(ROWS, np.eye(4)[:2]),
        mg.ShapeError,
        r"\(2, 3\)",
    ),
    "pictures without a channel": (
        lambda: nn.Conv2d(1, 2, 3, rng=RNG)(mg.ones((8, 8))),
        mg.ShapeError,
        r"x must have 4 axes \(B, C, ...\) or 3",
    ),
    "a column beside a row of predictions": (
        lambda: F.mse_loss(mg.ones((4, 1)), mg.ones(4)),
        mg.ShapeError,
        "Reshape one of them: broadcasting here is nearly always a mistake",
    ),
    "a learning rate in quotes": (
        lambda: optim.SGD([leaf()], lr="0.1"),
        TypeError,
        "lr must be a number, not a str",
    ),
    "one beta": (
        lambda: optim.AdamW([leaf()], lr=1e-3, betas=0.9),
        TypeError,
        "betas must be two numbers, not 0.9",
    ),
    "clipping a model": (
        lambda: optim.clip_grad_norm_(nn.Linear(2, 2, rng=RNG), 1.0),
        TypeError,
        r"not a Linear: pass model.parameters\(\)",
    ),
    "a file's name for a state dict": (
        lambda: nn.Linear(2, 2, rng=RNG).load_state_dict("model.safetensors"),
        TypeError,
        r"a file is read with minigrad.storage.load_safetensors\(path\)",
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
    "a model without rng": (
        lambda: TinyAlpaca(ModelConfig(**SIZES)),
        TypeError,
        r"'rng': the source of random numbers, rng=minigrad.Generator\(0\)",
    ),
    "a model with a seed": (
        lambda: TinyAlpaca(ModelConfig(**SIZES), 0),
        TypeError,
        r"rng must be a minigrad.Generator\(0\), where 0 is the seed",
    ),
    "a text for ids": (
        lambda: model()("to be"),
        TypeError,
        r"ids are an array, numpy.array\(\[tokenizer.encode\(text\)\]\)",
    ),
    "ids without a batch": (
        lambda: model()(np.array([1, 2])),
        mg.ShapeError,
        r"ids must be \(B, T\), not \(2,\)",
    ),
    "ids without tokens": (
        lambda: model()(np.zeros((1, 0), np.int64)),
        mg.ShapeError,
        r"ids must be \(B, T\), not \(1, 0\)",
    ),
    "a generator for the sizes": (
        lambda: TinyAlpaca(RNG, ModelConfig(**SIZES)),
        TypeError,
        "a Generator is no ModelConfig",
    ),
    "a dict for the sizes": (
        lambda: trained(TrainConfig(), {"d_model": 32}),
        TypeError,
        r"sizes are a ModelConfig\(d_model=32\), not a dict",
    ),
    "a hook that is not in a list": (
        lambda: trained(TrainConfig(), hooks=Hook()),
        TypeError,
        r"hooks come in a list: hooks=\[Hook\(...\)\]",
    ),
    "a loss that is a mean": (
        lambda: trained(book(), loss=lambda model, x, y: F.cross_entropy(model(x), y)),
        ValueError,
        r"the same window twice, as a mean does. It must return the sum",
    ),
    "a loss that is a number": (
        lambda: trained(book(), loss=lambda model, x, y: 1.0),
        TypeError,
        "loss must return a Tensor of one number, the sum of all losses, not a float",
    ),
    "losses that are not added up": (
        lambda: trained(book(), loss=lambda model, x, y: model(x)),
        TypeError,
        "loss must return a Tensor of one number, .* not a Tensor of shape",
    ),
    "an optimizer that is not returned": (
        lambda: trained(book(), optimizer=lambda groups: None),
        TypeError,
        r"optimizer must return an optimizer .*; it returned a NoneType",
    ),
    "no text in the settings": (
        lambda: TrainConfig(data=None),
        ValueError,
        "data must be str, not None",
    ),
    "an empty name of a text": (
        lambda: TrainConfig(data=""),
        ValueError,
        "data is empty: give a name, or . for the present folder",
    ),
    "an endless weight decay": (
        lambda: TrainConfig(weight_decay=float("inf")),
        ValueError,
        "weight_decay must be finite, it is inf",
    ),
    "half an epoch": (lambda: TrainConfig(epochs=1.5), ValueError, "epochs must be int, not 1.5"),
    "a name that tinyalpaca has not": (
        lambda: tinyalpaca.Trainer,
        AttributeError,
        "no attribute 'Trainer'; it has BPETokenizer, .*, train",
    ),
    "a file's name for a TrainConfig": (
        lambda: trained("book.txt"),
        TypeError,
        r"not a str: train\(TrainConfig\(data=",
    ),
    "a model that is made already": (
        lambda: trained(TrainConfig(), model=model()),
        TypeError,
        "model must be a class or a function, .*not a TinyAlpaca that is made already",
    ),
    "a loss that is a name": (
        lambda: trained(TrainConfig(), loss="mse"),
        TypeError,
        "loss must be a function of the model, inputs and targets, not a str",
    ),
    "an optimizer that is made already": (
        lambda: trained(TrainConfig(), optimizer=optim.SGD([leaf()], lr=0.1)),
        TypeError,
        "optimizer must be a class or a function, .*not a SGD that is made already",
    ),
    "a function for a hook": (
        lambda: trained(TrainConfig(), hooks=[print]),
        TypeError,
        "a hook is an object of a class made from tinyalpaca.Hook",
    ),
    "several texts to encode": (
        lambda: CharTokenizer.train("abc").encode(["a", "b"]),
        TypeError,
        "one text, a str, not a list",
    ),
    "a text to decode": (
        lambda: CharTokenizer.train("abc").decode("abc"),
        TypeError,
        "tokens are integers in one list or array",
    ),
    "a file for a run's folder": (
        lambda: load(__file__),
        minigrad.storage.FileFormatError,
        "this is a file: give the folder of a run",
    ),
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
    "a model and a tokenizer in the wrong order": (
        lambda: Generator(CharTokenizer.train("abcde"), model()),
        TypeError,
        r"Generator\(model, tokenizer\): a TinyAlpaca is no tokenizer",
    ),
    "another model's tokenizer": (
        lambda: Generator(model(), CharTokenizer.train("abcdefgh")),
        ValueError,
        "the tokenizer has 8 tokens, more than the model's 5: give the tokenizer",
    ),
    "max_tokens of generate()": (
        lambda: writer().generate("a", max_tokens=3),
        TypeError,
        "no setting 'max_tokens'; did you mean max_new_tokens",
    ),
    "a number for a prompt": (
        lambda: writer().generate(5),
        TypeError,
        "a prompt is a text or its token ids, not a int",
    ),
    "a temperature in quotes": (
        lambda: writer().generate("a", temperature="0.5"),
        TypeError,
        "temperature must be a number, not '0.5'",
    ),
    "top_k of a half": (
        lambda: writer().generate("a", top_k=1.5),
        TypeError,
        "top_k must be an integer, not 1.5",
    ),
    "no number of tokens": (
        lambda: writer().generate("a", max_new_tokens=None),
        TypeError,
        "max_new_tokens must be an integer, not None",
    ),
    "a token for a stop text": (
        lambda: writer().generate("a", stop=5),
        TypeError,
        "stop must be a text, or a list of texts, not 5",
    ),
    "no text to learn from": (
        lambda: BPETokenizer.train(None, progress=False),
        TypeError,
        "a NoneType is no text, nor a list of texts, to learn from",
    ),
    "dropout with a seed": (
        lambda: F.dropout(ROWS, 0.5, rng=0),
        TypeError,
        r"not int: rng=minigrad.Generator\(0\)",
    ),
    "half a sample": (
        lambda: writer().generate("a", num_samples=1.5),
        TypeError,
        "num_samples must be an integer, not 1.5",
    ),
    "a generator for a seed": (
        lambda: writer().generate("a", seed=RNG),
        TypeError,
        "seed must be an integer, or one for each prompt, not <",
    ),
    "a tensor for a prompt": (
        lambda: writer().generate(mg.Tensor([1, 2])),
        TypeError,
        r"not a Tensor: .tolist\(\) gives ids",
    ),
    "a score of several texts": (
        lambda: writer().score(["abc"]),
        TypeError,
        r"score\(\) is given one text or corpus, not a list",
    ),
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


def test_there_are_a_hundred_and_forty() -> None:
    assert len(MISTAKES) >= 140


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ROWS.transpose(0, 1), r"changes nothing: .T turns a matrix, .swapaxes\(0, 1\)"),
        (
            lambda: F.cross_entropy(F.softmax(ROWS * leaf()[0], axis=-1), [0, 1]),
            "cross_entropy does the softmax itself, .* leave out your own",
        ),
        (
            lambda: type("Tell", (Hook,), {"on_epochs": print}),
            "Tell.on_epochs is never called by a training; did you mean on_epoch?",
        ),
        (
            lambda: list(WithTensor().parameters()),
            r"WithTensor.scale requires a gradient but is no parameter, .*nn.Parameter\(values\)",
        ),
    ],
)
def test_what_runs_but_is_hardly_meant_is_said(make: Callable[[], Any], words: str) -> None:
    with pytest.warns(UserWarning, match=words):
        make()


def test_what_is_meant_is_not_said() -> None:
    """These give no warning; a warning would be an error here."""
    assert ROWS.transpose((0, 1)).shape == (2, 3) and ROWS.transpose(1, 0).shape == (3, 2)
    F.cross_entropy(mg.log_softmax(ROWS * leaf()[0], axis=-1), [0, 1])
    assert 4.0 in mg.Tensor([[1.0, 4.0]]) and 5.0 not in ROWS
    assert mg.stack(x for x in (leaf(), leaf())).shape == (2, 2)
    assert RNG.normal(5, mean=3).shape == (5,) and RNG.uniform((2,), 0, 0.5).shape == (2,)
    assert RNG.normal((2, 3), mean=[0, 1, 2]).shape == (2, 3)


def test_what_is_valid_is_no_mistake() -> None:
    """Where a warning is an error, as here, these have none."""
    assert ROWS.transpose(*np.argsort([0, 1])).shape == (2, 3)
    assert None not in ROWS and "a" not in ROWS
    for name in ("no_grad", "textbook", "detect_nan"):
        assert pickle.loads(pickle.dumps(getattr(mg, name))) is getattr(mg, name)
        assert copy.deepcopy(getattr(mg, name)) is getattr(mg, name)
    assert F.dropout(ROWS, 0.0, rng=None).shape == ROWS.shape  # type: ignore[arg-type]
    masked = F.binary_cross_entropy_with_logits([1.0, 2.0], [0.0, -1.0], weight=[1.0, 0.0])
    assert np.isfinite(masked.item())
    each = F.binary_cross_entropy_with_logits([1.0, 2.0], [0.0, -100.0], reduction="none")
    assert each.shape == (2,)
    model = nn.Sequential(nn.ReLU())
    model.register_buffer("b", leaf(), persistent=False)
    assert model.state_dict() == {}
    own = type(
        "Own", (nn.ReLU, type("Mix", (), {"__init__": lambda s: setattr(s, "mixed", 1)})), {}
    )
    assert own().mixed == 1 and str(inspect.signature(nn.ReLU)) == "()"


def test_own_methods_of_a_hook_are_no_mistakes() -> None:
    def on_epoch(self: Any, state: Any, record: Any) -> None:
        self.on_epochs()

    for name in ("on_gpu", "on_log", "on_top", "on_lr", "on_host", "on_best"):
        type("Own", (Hook,), {name: print})
    base = type("Base", (Hook,), {"on_epoch": on_epoch, "on_epochs": print})
    type("Derived", (base,), {"on_epochs": print})
    with pytest.warns(UserWarning, match="did you mean on_stop"):
        type("Own", (Hook,), {"on_train_end": print})


def test_an_error_of_a_class_of_ones_own_stays_one() -> None:
    class Refused(TypeError):
        pass

    class Own(nn.Module):
        def __init__(self, *, rng: Any = None) -> None:
            raise Refused("missing 'rng'")

    with pytest.raises(Refused, match="There is no global random state"):
        Own()


def test_a_property_that_fails_says_why() -> None:
    """It does not say that the module has no such attribute."""

    class Model(nn.Module):
        @property
        def width(self) -> int:
            return int(self.layer.width)

    with pytest.raises(AttributeError, match="'Model' object has no attribute 'layer'"):
        _ = Model().width
    assert not hasattr(Model(), "anything")

    class Named(mg.Tensor):
        @property
        def name(self) -> str:
            return str(self.label)

    with pytest.raises(AttributeError, match="'Tensor' object has no attribute 'label'"):
        _ = Named([1.0]).name
    assert not hasattr(Named([1.0]), "anything")


def test_attributes_that_another_class_finds() -> None:
    class Settings:
        def __getattr__(self, name: str) -> int:
            if name == "depth":
                return 7
            raise AttributeError(name)

    class Model(nn.Module, Settings):
        pass

    assert Model().depth == 7
    assert not hasattr(Model(), "anything")


def test_a_missing_rng_is_explained_once() -> None:
    class Inner(nn.Module):
        def __init__(self, *, rng: mg.Generator) -> None:
            self.layer = nn.Linear(2, 2)  # type: ignore[call-arg]

    with pytest.raises(TypeError) as error:
        Inner(rng=mg.Generator(0))
    assert str(error.value).count("the source of random numbers") == 1


def test_files_are_imported_when_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(mg, "storage", raising=False)
    assert mg.storage is sys.modules["minigrad.storage"]


def test_a_forgotten_backward_is_noticed() -> None:
    """If all gradients are missing. If only some are, it may be intended."""
    one, other = leaf(), leaf()
    optimizer = optim.SGD([one, other], lr=0.1)
    with pytest.warns(
        mg.NoGradientWarning, match=r"no parameter has a gradient: call loss.backward\(\)"
    ):
        optimizer.step()
    one.sum().backward()
    optimizer.step()  # gives no warning; a warning would be an error here
    np.testing.assert_allclose(one.data, [0.9, 1.9])
    np.testing.assert_array_equal(other.data, [1.0, 2.0])


def test_an_optimizer_of_frozen_parameters_is_noticed() -> None:
    with pytest.warns(mg.NoGradientWarning, match="all are frozen: none has requires_grad=True"):
        optim.SGD([mg.Tensor([1.0])], lr=0.1).step()


def test_what_is_named_instead_is_there() -> None:
    """Each hint begins with an expression whose names exist."""
    hints = [hint for names in FROM_PACKAGES.values() for hint in names.values()]
    paths = [path for hint in hints for path in re.findall(r"\b(?:minigrad|nn)[\w.]*", hint)]
    assert len(paths) > 25
    for path in paths:
        assert eval(path, {"minigrad": mg, "nn": nn}) is not None, path
    for package, names in FROM_PACKAGES.items():
        assert not [name for name in names if name in vars(sys.modules[package])]
    for name, hint in FROM_PYTORCH.items():
        assert name not in vars(mg.Tensor), name
        method = re.match(r"\.(\w+)", hint)
        assert method is None or hasattr(ROWS, method[1]), hint


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
        ("evaluate runs/a --preset best", "unrecognized arguments: --preset best; it is a flag of"),
        ("train --preset bset", "choose from 'original', 'best'"),
        ("train --foo 3", "unrecognized arguments: --foo 3. --help after"),
        ("train book.txt", "unrecognized arguments: book.txt; did you mean --data book.txt?"),
        ("train -data book.txt", "did you mean --data?"),
        ("generate ROMEO:", "did you mean --prompt ROMEO:?"),
        ("play runs/mine", "did you mean --checkpoint runs/mine?"),
        ("evaluate --data book.txt", "it is a flag of train, sweep; here the text has no flag."),
    ],
)
def test_a_wrong_flag(command: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(command.split())
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("epochs = 3", r"epochs belongs into \[training\]"),
        ("[training]\nepoch = 3", "no setting 'epoch'; did you mean epochs?"),
        ("[training]\nd_model = 32", r"d_model belongs into \[model\], not \[training\]"),
        ("[model]\nlearning_rate = 0.1", r"learning_rate belongs into \[training\], not \[model\]"),
        ('[training]\npreset = "best"', "preset stands above the tables"),
        ("training = 3", "training must be a table of settings, not 3"),
        ('[training]\nepochs = "3"', "epochs must be int, not '3'"),
        ("[training\nepochs = 3", "neither TOML nor a run's config.json"),
    ],
)
def test_a_file_of_settings_that_is_wrong(
    settings: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(settings, encoding="utf-8")
    assert main(["train", "--config", str(path), "--out", str(tmp_path / "run")]) == 1
    assert re.search(words, capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["evaluate", "train --data", "train --out"])
def test_an_empty_name_is_not_the_present_folder(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As of a variable of the shell that is not set."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "book.txt").write_text("to be or not to be, " * 200, encoding="utf-8")
    save(tmp_path / "runs/shakespeare", model(), CharTokenizer.train("abcde"))
    assert main([*command.split(), ""]) == 1
    assert "give" in (said := capsys.readouterr().err) and "or . for the present folder" in said


def test_a_model_for_the_text_to_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").touch()
    assert main(["evaluate", str(tmp_path)]) == 1
    assert f"give it with --checkpoint {tmp_path}" in capsys.readouterr().err


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(mg.DeviceError, match=r'pip install -e "\.\[cuda13\]"'):
        mg.Tensor([1.0]).to("gpu")
