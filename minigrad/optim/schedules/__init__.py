"""Learning-rate schedules, under PyTorch's names.

A schedule sets "lr" of each group of an optimizer, based on the lr that the group had at the start.
Call `step()` once after each optimizer step, or once after each epoch.
"""

from minigrad.optim.schedules.base import Schedule
from minigrad.optim.schedules.combined import ReduceLROnPlateau, SequentialLR
from minigrad.optim.schedules.cosine import (
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    WarmupConstantLR,
    WarmupCosineLR,
    WarmupLinearLR,
)
from minigrad.optim.schedules.cycle import OneCycleLR
from minigrad.optim.schedules.decay import (
    ConstantLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiStepLR,
    StepLR,
)

__all__ = [
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "ExponentialLR",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "OneCycleLR",
    "ReduceLROnPlateau",
    "Schedule",
    "SequentialLR",
    "StepLR",
    "WarmupConstantLR",
    "WarmupCosineLR",
    "WarmupLinearLR",
]
