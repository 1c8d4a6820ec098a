"""Optimizers, gradient clipping and learning-rate schedules, with PyTorch's names and behaviour."""

from typing import TYPE_CHECKING

from minigrad.hints import missing_name
from minigrad.ops.updates.rule import Rule
from minigrad.optim import counting
from minigrad.optim.adam import Adam, AdamW
from minigrad.optim.clip import clip_grad_norm_, clip_grad_value_
from minigrad.optim.flat import FlatParameters
from minigrad.optim.muon import Muon
from minigrad.optim.optimizer import Optimizer
from minigrad.optim.rmsprop import RMSprop
from minigrad.optim.schedules import (
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    Schedule,
    SequentialLR,
    StepLR,
    WarmupConstantLR,
    WarmupCosineLR,
    WarmupLinearLR,
)
from minigrad.optim.sgd import SGD
from minigrad.optim.update import Orders

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "ExponentialLR",
    "FlatParameters",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "Muon",
    "OneCycleLR",
    "Optimizer",
    "Orders",
    "RMSprop",
    "ReduceLROnPlateau",
    "Rule",
    "Schedule",
    "SequentialLR",
    "StepLR",
    "WarmupConstantLR",
    "WarmupCosineLR",
    "WarmupLinearLR",
    "clip_grad_norm_",
    "clip_grad_value_",
    "counting",
]

if not TYPE_CHECKING:  # otherwise checkers would accept every name
    __getattr__ = missing_name(__name__)
