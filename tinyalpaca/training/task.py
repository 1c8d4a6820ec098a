"""What is trained: model, loss, data, optimizer, schedule and engine. Each can be your own.

`make_task` builds a task of language modelling. Parts that a user does not bring are made as the
settings say, in `tinyalpaca.training.defaults`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from math import inf
from typing import Any, NamedTuple

import numpy as np

from minigrad import Tensor, optim
from minigrad.parallel import Engine, mpi
from tinyalpaca.config import TrainConfig
from tinyalpaca.data import RandomWindows, TinyPacaDataset
from tinyalpaca.evaluation import Score, evaluate
from tinyalpaca.model import TinyAlpaca
from tinyalpaca.training import defaults
from tinyalpaca.training.loss import Loss, LossFunction
from tinyalpaca.training.state import Part, TrainingState

MakeOptimizer = Callable[[list[dict[str, Any]]], optim.Optimizer]  # from groups of parameters
MakeSchedule = Callable[[optim.Optimizer, int], optim.Schedule]  # the steps of the run are given
GIVEN = "given in Python"  # stands for the name of a text that has none
HASHED_AT_A_TIME = 2**20  # tokens, so that a large mapped file need not fit the memory


class Data(NamedTuple):
    """Tokens for training and for validation, and how many characters the latter stand for."""

    train: np.ndarray
    validation: np.ndarray
    validation_characters: int

    def fingerprint(self) -> str:
        """A hash by which a resumed run checks that the tokens are the same."""
        digest = hashlib.sha256()
        for tokens in (self.train, self.validation):
            for start in range(0, len(tokens), HASHED_AT_A_TIME):
                part = tokens[start : start + HASHED_AT_A_TIME]
                digest.update(np.ascontiguousarray(part, np.int64).tobytes())
        return digest.hexdigest()


class Own(NamedTuple):
    """The user's own parts, which replace those that the settings would make.

    Attributes:
        model: makes one from its settings and a `minigrad.Generator`, as a class does.
        loss: maps the model, inputs and targets (B, T) to the *sum* of their losses.
        optimizer: makes one from groups of parameters.
        schedule: makes one from the optimizer and the number of steps of the run.
        data, tokenizer: tokens, and what they stand for.
    """

    model: Any = TinyAlpaca
    loss: LossFunction | None = None
    optimizer: MakeOptimizer | None = None
    schedule: MakeSchedule | None = None
    data: Data | None = None
    tokenizer: Any = None


OURS = Own()  # nothing


class Task:
    """What is trained.

    Args:
        model: on its device already.
        loss: see `Loss`.
        data: the tokens.
        optimizer: of the model's parameters.
        engine: computes gradients and makes updates.
        schedule: of the optimizer's learning rates.
        dataset, sampler: windows of the training tokens, and their order.
        config: how batches become steps and steps a run.
        own: see below.

    Attributes:
        parameters, names: in the optimizer's order.
        own: the user's own parts in words, with which a resumed run compares its own.
        weights_for_use: makes a context manager in which the model has the weights to validate and
            save: the trained ones, unless a hook keeps others (an average).
    """

    sampler: defaults.Sampler
    model: Any
    loss: Loss
    data: Data
    optimizer: optim.Optimizer
    engine: Engine
    schedule: optim.Schedule
    dataset: TinyPacaDataset | RandomWindows
    accumulate: int
    max_norm: float
    batch_size: int
    seq_len: int

    def __init__(
        self,
        model: Any,
        loss: Loss,
        data: Data,
        optimizer: optim.Optimizer,
        engine: Engine,
        schedule: optim.Schedule,
        dataset: TinyPacaDataset | RandomWindows,
        sampler: defaults.Sampler,
        config: TrainConfig,
        own: Mapping[str, str] | None = None,
    ) -> None:
        self.own: dict[str, str] = dict(own or {})
        self.model, self.loss, self.data = model, loss, data
        self.optimizer, self.engine, self.schedule = optimizer, engine, schedule
        self.dataset, self.sampler = dataset, sampler
        self.parameters: list[Tensor] = optimizer.parameters()
        name_of = {id(p): name for name, p in model.named_parameters()}
        self.names: list[Any] = [name_of[id(p)] for p in self.parameters]
        self.weights_for_use: Callable[[], AbstractContextManager[None]] = nullcontext
        self.accumulate, self.max_norm = config.accumulate, config.grad_clip or inf
        self.batch_size, self.seq_len = config.batch_size, config.seq_len
        self.eval_every: int = config.eval_every
        self.steps_per_epoch: int = defaults.epoch_steps(sampler, config)
        self.total_steps: int = defaults.count_steps(config, self.steps_per_epoch)

    def start(self) -> TrainingState:
        """The state before the first step."""
        return TrainingState(self.sampler.state_dict())

    def first_batch(self) -> Part:
        """The windows that training begins with; the sampler stays where it is."""
        before = self.sampler.state_dict()
        batch = self.dataset.batch_at(next(iter(self.sampler)))
        self.sampler.load_state_dict(before)
        return batch

    def over(self, state: TrainingState) -> bool:
        """Whether all steps have been made."""
        return state.step >= self.total_steps

    def ends_epoch(self, state: TrainingState) -> bool:
        """Whether the last step was the last of an epoch, or of all."""
        return not state.sampler["position"] or self.over(state)

    def validation_is_due(self, state: TrainingState) -> bool:
        """Whether an epoch, `eval_every` steps or the last one are trained but not validated."""
        validated = state.records[-1]["step"] if state.records else 0
        between = self.eval_every > 0 and state.step % self.eval_every == 0
        return state.step > validated and (self.ends_epoch(state) or between)

    def learning_rate(self, step: int) -> float:
        """Of the first group in the update with this number, from 0."""
        return self.schedule.lrs_at(max(0, step))[0]

    def validate(self, ask: Callable[[], None] = lambda: None, stride: int = 0) -> Score:
        """Score of the validation text, each token but the first predicted once.

        Args:
            ask: called before every batch; what it raises ends the validation.
            stride: see `tinyalpaca.evaluation.evaluate`.
        """

        def summed_loss(part: Part) -> Any:
            ask()
            return self.engine.evaluate(part)

        return evaluate(
            summed_loss,
            self.data.validation,
            self.data.validation_characters,
            seq_len=self.seq_len,
            batch_size=self.batch_size,
            stride=stride,
        )

    def weights_are_good(self) -> bool:
        """Whether the weights are finite, and give a finite loss on some windows."""
        x, y = self.dataset.batch_at(np.arange(min(4, len(self.dataset))))
        with np.errstate(all="ignore"):
            finite = bool(np.isfinite(float(abs(self.engine.flat.array).sum())))
            return finite and bool(np.isfinite(float(self.engine.evaluate((x, y)))))


def make_task(
    model: Any,
    data: Data,
    config: TrainConfig,
    own: Own = OURS,
    ranks: mpi.Ranks | None = None,
    *,
    resumed: bool = False,
) -> Task:
    """A task of language modelling, as the settings say where nothing else is given.

    Args:
        model: maps ids (B, T) to logits (B, T, V); on its device already.
        data: the tokens.
        ranks: the processes that share each batch; None for this one alone.
        resumed: whether it goes on as it was, so that an own loss is not checked again.

    Raises:
        ValueError: the training sequences are longer than the data, or a loss is a mean.
        TypeError: the schedule has no `lrs_at`, or another part is not what it should be.
    """
    dataset, sampler = defaults.make_sampler(data.train, config)
    groups = defaults.parameter_groups(model, config)
    optimizer = own.optimizer(groups) if own.optimizer else defaults.make_optimizer(groups, config)
    if not hasattr(optimizer, "param_groups"):
        raise TypeError(
            "optimizer must return an optimizer when it is given groups of parameters, as lambda "
            f"groups: optim.SGD(groups, lr=0.1) does; it returned a {type(optimizer).__name__}"
        )
    loss = Loss(model, config, own.loss)
    if own.loss and not resumed:
        loss.require_sum(dataset.batch_at([0]), dataset.batch_at([0, 0]))
    names = {"model": type(model).__name__} if own.model is not TinyAlpaca else {}
    if own.loss:
        names["loss"] = getattr(own.loss, "__name__", type(own.loss).__name__)
    if own.optimizer:
        names["optimizer"] = describe(optimizer)
    engine = defaults.make_engine(model, config, optimizer, loss, ranks)
    per_epoch = defaults.epoch_steps(sampler, config)
    total = defaults.count_steps(config, per_epoch)
    if own.schedule:
        schedule = own.schedule(optimizer, total)
        if not hasattr(schedule, "lrs_at"):
            raise TypeError(
                f"the schedule of a training has to know the learning rates after any number of "
                f"steps (lrs_at), as a minigrad.optim.Schedule does; {type(schedule).__name__} "
                "does not"
            )
        names["schedule"] = type(schedule).__name__
    else:
        schedule = defaults.make_schedule(optimizer, config, per_epoch, total)
    if own.data is not None:
        names["data"] = GIVEN
    return Task(model, loss, data, optimizer, engine, schedule, dataset, sampler, config, names)


def describe(optimizer: optim.Optimizer) -> str:
    """An optimizer in words, with the settings of its first group: "SGD(lr=0.1, momentum=0.9)"."""
    group = optimizer.param_groups[0]
    plain = (bool, int, float, str, tuple)
    told = [f"{k}={v}" for k, v in group.items() if k != "params" and isinstance(v, plain)]
    return f"{type(optimizer).__name__}({', '.join(told)})"
