"""All CUDA sources, the engine's and the model's."""

import tinyalpaca.generation.cuda
import tinyalpaca.training.windows  # noqa: F401 - importing a launcher lists its source
from minigrad.kernels.cuda.compile import SOURCES

__all__ = ["SOURCES", "source"]


def source(file: str) -> str:
    """The kernels of `file`.cu, complete."""
    return next(kernels.text() for kernels in SOURCES if kernels.file == file)
