"""CUDA kernels for generation: they compute one more token for each of some sequences, and draw it.

As in `minigrad.kernels.cuda`, a `.cu` file lies beside the module that launches it, and importing
compiles nothing.
"""

from tinyalpaca.generation.cuda import decode, draw

__all__ = ["decode", "draw"]
