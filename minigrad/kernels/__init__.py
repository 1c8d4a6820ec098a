"""Fast pairs (forward, backward) for some ops, one package a backend. See `minigrad.op`.

Importing this package registers them with their ops.
"""

from minigrad.kernels import cpu, cuda

__all__ = ["cpu", "cuda"]
