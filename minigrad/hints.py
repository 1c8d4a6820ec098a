"""Hints for newcomers, which are added to error messages.

They are looked up only after an error, so they cost nothing otherwise.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import cache, wraps
from importlib import import_module
from types import FunctionType, ModuleType
from typing import Any, NoReturn, cast

# Names that tensors have in PyTorch, and what to say here instead.
FROM_PYTORCH = {
    "view": ".reshape(shape)",
    "permute": ".transpose(axes)",
    "unsqueeze": "minigrad.expand_dims(x, axis)",
    "cuda": '.to("gpu")',
    "cpu": '.to("cpu")',
    "numel": ".size",
    "dim": ".ndim",
    "float": '.astype("float32")',
    "double": '.astype("float64")',
    "half": '.astype("float16")',
    "long": '.astype("int64")',
    "type": ".astype(dtype)",
    "requires_grad_": ".requires_grad = True",
    "zero_": ".data[...] = 0",
    "contiguous": "nothing: every op accepts any layout",
    "t": ".T",
    "add_": "x += other, under no_grad()",
    "sub_": "x -= other, under no_grad()",
    "mul_": "x *= other, under no_grad()",
    "copy_": ".assign(values)",
    "fill_": ".data[...] = value",
    "masked_fill": "minigrad.where(mask, value, x)",
    "expand": ".broadcast_to(shape)",
    "gather": "minigrad.take_along_axis(x, indices, axis)",
    "int": '.astype("int32")',
    "bool": '.astype("bool")',
    "amax": ".max(axis)",
    "amin": ".min(axis)",
    "sub": ".subtract(other)",
    "mul": ".multiply(other)",
    "div": ".divide(other)",
    "mm": "x @ other",
    "bmm": "x @ other",
    "clamp": ".clip(min, max)",
    "retain_grad": ".register_hook(function), which is given the gradient",
    "eq": "x == other",
    "ne": "x != other",
    "lt": "x < other",
    "le": "x <= other",
    "gt": "x > other",
    "ge": "x >= other",
    "neg": "-x",
    "chunk": "minigrad.split(x, parts, axis)",
    "split": "minigrad.split(x, parts, axis), or slices, as x[:n]",
    "detach_": ".detach()",
    "expand_as": ".broadcast_to(other.shape)",
    "view_as": ".reshape(other.shape)",
    "index_select": "x[:, indices], with as many : as axes come before",
    "repeat_interleave": ".repeat(n, axis)",
    "nelement": ".size",
    "new_zeros": "minigrad.zeros(shape, dtype=x.dtype)",
    "new_ones": "minigrad.ones(shape, dtype=x.dtype)",
    "is_cuda": '.device, which is "cpu" or "gpu"',
    "grad_fn": ".node, the op that made it",
    "normal_": ".assign(rng.normal(x.shape)), where rng = minigrad.Generator(seed)",
    "uniform_": ".assign(rng.uniform(x.shape)), where rng = minigrad.Generator(seed)",
}

# Names that PyTorch's packages have and ours have not.
FROM_PACKAGES = {
    "minigrad": {
        "FloatTensor": 'minigrad.Tensor(data, dtype="float32")',
        "LongTensor": 'minigrad.Tensor(data, dtype="int64")',
        "Size": "tuple, as x.shape is",
        "allclose": "numpy.allclose(x.numpy(), y.numpy())",
        "Variable": "minigrad.Tensor(data, requires_grad=True)",
        "as_tensor": "minigrad.asarray(data)",
        "bernoulli": "minigrad.Generator(seed).bernoulli(shape, p)",
        "bmm": "minigrad.matmul(x, y)",
        "cat": "minigrad.concatenate(tensors, axis)",
        "chunk": "slices, as x[:n]",
        "clamp": "minigrad.clip(x, min, max)",
        "cuda": 'minigrad.Device("gpu"), and minigrad.gpu_available()',
        "div": "minigrad.divide(x, y)",
        "double": "minigrad.float64",
        "float": "minigrad.float32",
        "from_numpy": "minigrad.Tensor(array), which shares its memory",
        "gather": "minigrad.take_along_axis(x, indices, axis)",
        "half": "minigrad.float16",
        "inference_mode": "minigrad.no_grad()",
        "is_tensor": "isinstance(x, minigrad.Tensor)",
        "long": "minigrad.int64",
        "masked_fill": "minigrad.where(mask, value, x)",
        "multinomial": "minigrad.Generator(seed).numpy.choice(n, p=probabilities)",
        "normal": "minigrad.Generator(seed).normal(shape)",
        "numel": "x.size",
        "set_grad_enabled": "minigrad.no_grad(), and minigrad.enable_grad() inside of it",
        "uniform": "minigrad.Generator(seed).uniform(shape)",
        "utils": "minigrad.Generator(seed).permutation(n), which as an index gives batches",
        "load": "minigrad.storage.load_safetensors(path), or load_torch(path) for a .pth file",
        "manual_seed": "rng = minigrad.Generator(seed), which layers are given: no state is global",
        "mm": "minigrad.matmul(x, y)",
        "mul": "minigrad.multiply(x, y)",
        "permute": "minigrad.transpose(x, axes)",
        "rand": "minigrad.Generator(seed).uniform(shape)",
        "randn": "minigrad.Generator(seed).normal(shape)",
        "randint": "minigrad.Generator(seed).integers(low, high, shape)",
        "randperm": "minigrad.Generator(seed).permutation(n)",
        "save": "minigrad.storage.save_safetensors(tensors, path)",
        "seed": "rng = minigrad.Generator(seed), which layers are given: no state is global",
        "sub": "minigrad.subtract(x, y)",
        "unsqueeze": "minigrad.expand_dims(x, axis)",
    },
    "minigrad.nn": {
        "BCEWithLogitsLoss": "nn.functional.binary_cross_entropy_with_logits(logits, targets)",
        "CrossEntropyLoss": "nn.functional.cross_entropy(logits, targets)",
        "LogSoftmax": "minigrad.log_softmax(x, axis)",
        "NLLLoss": "nn.functional.cross_entropy(logits, targets)",
        "Softmax": "minigrad.softmax(x, axis)",
        "relu": "nn.functional.relu(x), or the module nn.ReLU()",
        "BCELoss": "nn.functional.binary_cross_entropy_with_logits(logits, targets)",
        "LeakyReLU": "minigrad.maximum(x, 0.01 * x) in a forward of your own",
        "ParameterList": "nn.Parameter(values) in an attribute for each",
        "init": "layer.weight.assign(values), with values of a minigrad.Generator(seed)",
        "utils": "minigrad.optim.clip_grad_norm_(parameters, max_norm)",
    },
    "minigrad.nn.functional": {
        "binary_cross_entropy": "nn.functional.binary_cross_entropy_with_logits(logits, targets)",
        "leaky_relu": "minigrad.maximum(x, 0.01 * x)",
        "log_softmax": "minigrad.log_softmax(x, axis)",
        "normalize": "x / minigrad.linalg.vector_norm(x, axis=-1, keepdims=True)",
        "one_hot": "minigrad.eye(classes)[labels]",
        "pad": "minigrad.concatenate([x, minigrad.zeros(shape)], axis)",
    },
    "minigrad.optim": {
        "lr_scheduler": "minigrad.optim itself, as in minigrad.optim.StepLR(optimizer, 10)",
    },
}

# Sub-packages that are imported when they are first asked for: files are not for everyone.
LATE = {"minigrad": ("storage",)}

# Arguments that PyTorch's functions have, and what they are here.
ARGUMENTS = {
    "dim": "axis",
    "dims": "axis",
    "dim0": "axis1",
    "dim1": "axis2",
    "keepdim": "keepdims",
    "unbiased": "ddof",
}


# Methods that models have elsewhere.
FROM_MODULES = {
    "cuda": '.to("gpu")',
    "cpu": '.to("cpu")',
    "float": '.astype("float32")',
    "double": '.astype("float64")',
    "half": '.astype("float16")',
    "save": "minigrad.storage.save_safetensors(model.state_dict(), path)",
    "load": "model.load_state_dict(minigrad.storage.load_safetensors(path))",
    "fit": "a loop of loss, backward() and optimizer.step(), as in examples/digits.py",
    "predict": "a call: model(x)",
    "children": "model.named_children(), which gives names as well",
    "backward": "loss.backward(), of what the loss function has given",
    "register_parameter": "an assignment: self.name = nn.Parameter(values)",
    "add_module": "an assignment: self.name = module",
}


def missing_in_module(kind: str, name: str) -> str:
    """The message for an attribute that a module has not."""
    hint = FROM_MODULES.get(name)
    meant = f"; what is called so elsewhere is here {hint}" if hint else ""
    return f"{kind!r} object has no attribute {name!r}{meant}"


def missing_attribute(name: str) -> str:
    """The message for an attribute that a tensor has not."""
    hint = FROM_PYTORCH.get(name)
    if hint is None and name.endswith("_") and not name.startswith("_"):
        hint = f".data[...] = values, or x = x.{name[:-1]}(...), as only operators write in place"
    meant = f"; what PyTorch calls so is here {hint}" if hint else ""
    return f"'Tensor' object has no attribute {name!r}{meant}"


def missing_name(package: str) -> Callable[[str], ModuleType]:
    """The `__getattr__` of a package, which Python calls only for what is not there."""

    def missing(name: str) -> ModuleType:
        if name in LATE.get(package, ()):
            return import_module(f"{package}.{name}")
        hint = FROM_PACKAGES[package].get(name)
        meant = f"; what PyTorch calls so is here {hint}" if hint else _home(package, name)
        message = f"module {package!r} has no attribute {name!r}{meant}"
        raise AttributeError(message, name=name, obj=sys.modules[package])

    return missing


def _home(package: str, name: str) -> str:
    """Where in our packages a name is that is looked for in another one of them, or ""."""
    homes = [home for home in FROM_PACKAGES if home != package]
    found = [f"{home}.{name}" for home in homes if name in vars(sys.modules.get(home, sys))]
    return f"; there is {found[0]}" if found and not name.startswith("_") else ""


class NoFunction(ModuleType):
    """The class of `minigrad.tensor` and `minigrad.device`, which are functions in PyTorch."""

    def __call__(self, *args: Any, **options: Any) -> NoReturn:
        """Raise TypeError, always."""
        name = self.__name__
        made = name.rpartition(".")[2].title()
        raise TypeError(f"{name} is a module; what you mean is made by minigrad.{made}(...)")


def explain_arguments(functions: dict[str, Any], names: Iterable[str], place: str) -> None:
    """Let functions answer PyTorch's names of arguments, such as `dim`, with their own.

    Only those that have an `axis` get the wrapper in which that happens.

    Args:
        functions: by name; what is wrapped takes its place there.
        names: which to look at.
        place: the module whose names these are.
    """
    for name in names:
        function = functions[name]
        if isinstance(function, FunctionType):
            code = function.__code__
            parameters = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            if not {"axis", "axis1"}.isdisjoint(parameters):
                explained = functions[name] = _with_arguments_explained(function)
                if explained.__module__ == function.__module__:
                    explained.__module__ = place  # where it is found, for pickle


@cache  # so that two names of a function stay one function
def _with_arguments_explained(function: FunctionType) -> FunctionType:
    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        try:
            return function(*args, **options)
        except TypeError:
            meant = [f"{ARGUMENTS[n]}= for {n}=" for n in options if n in ARGUMENTS]
            if not meant:
                raise
            name, words = function.__name__, " and ".join(meant)
            raise TypeError(f"{name}() names its arguments as NumPy does: {words}") from None

    return cast(FunctionType, call)


# Settings of optimizers as others call them.
SETTINGS = {"learning_rate": "lr", "epsilon": "eps", "wd": "weight_decay", "decay": "weight_decay"}


def _explain(kind: type, meant: Callable[[str, FunctionType, dict[str, Any]], str]) -> None:
    """Let the TypeErrors of a class's `__init__` end with what `meant` says of them, if anything.

    Args:
        meant: gets the error's message, the `__init__` and the options that it was given.
    """
    init = vars(kind).get("__init__")
    if not isinstance(init, FunctionType):
        return

    @wraps(init)
    def call(self: Any, *args: Any, **options: Any) -> None:
        try:
            init(self, *args, **options)
        except TypeError as error:
            more = meant(str(error), init, options)
            if not more:
                raise
            error.args = (f"{error}{more}",)
            raise

    setattr(kind, "__init__", call)  # noqa: B010  (mypy knows it as a method)


def explain_options(kind: type) -> None:
    """Let the TypeError of a class say which of its settings an unknown one may be."""
    _explain(kind, _settings_meant)


def _settings_meant(message: str, init: FunctionType, options: dict[str, Any]) -> str:
    names = init.__code__.co_varnames[1 : sum(_counts(init))]
    unknown = [name for name in options if name not in names]
    if "unexpected keyword" not in message or not unknown or "; it has" in message:
        return ""
    from difflib import get_close_matches  # which is slow to import

    near = SETTINGS.get(unknown[0]) or next(iter(get_close_matches(unknown[0], names)), "")
    listed = ", ".join(name for name in names if not name.startswith("_"))
    return f"; it has {listed}" + (f"; did you mean {near}?" if near in names else "")


def _counts(function: FunctionType) -> tuple[int, int]:
    """How many arguments a function has, and how many more that are given by name alone."""
    return function.__code__.co_argcount, function.__code__.co_kwonlyargcount


RNG = (
    "the source of random numbers, rng=minigrad.Generator(0), where 0 is the seed. There is no "
    "global random state."
)


def explain_rng(kind: type) -> None:
    """Let the TypeError of a class say what the `rng` is that it was made without."""
    _explain(kind, _rng_meant)


def _rng_meant(message: str, init: FunctionType, options: dict[str, Any]) -> str:
    missing = "missing" in message and "'rng'" in message
    return "" if not missing or RNG in message else f": {RNG}"


def shapes_that_do_not_fit(op: str, inputs: tuple[Any, ...]) -> str:
    """What must be so of the inputs' shapes, for ops of which much is asked; maybe ""."""
    shapes = [x.shape for x in inputs if x is not None]
    if op == "matmul" and all(shapes) and len(shapes) == 2:
        inner = shapes[1][-2 if len(shapes[1]) > 1 else -1]
        if shapes[0][-1] != inner:
            return (
                f": the last axis of the first ({shapes[0][-1]}) must be as long as the last but "
                f"one of the second ({inner}); .T or .mT turns a matrix"
            )
    return ""


def about_broadcasting(error: Exception) -> str:
    """The rule, where NumPy's message says that it is not kept."""
    if "broadcast" not in str(error):
        return ""
    return (
        ": sizes must be equal or 1, counted from the last axis; .reshape gives an axis of size 1"
    )
