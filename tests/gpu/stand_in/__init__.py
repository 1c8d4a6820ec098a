"""A stand-in for CuPy on NumPy, stricter than CuPy: `--device gpu` without a GPU.

Arrays are NumPy arrays in a shell that no NumPy function looks through. What a GPU would punish
late or silently raises here:

- host and device arrays do not mix, and a device array becomes a host array by `get` only;
- memory from `empty` is full of 0xff bytes (as floats: NaN) and lies between guards of the same
  that are looked at after every kernel, so that what is read or written beside an array is found;
- raw kernels take device arrays and typed scalars, and run through the CPU shim;
- while a stream captures, nothing is executed or copied; `Graph.launch` does what was recorded.

Launches and transfers are counted. `names.py` lists the functions that there are.
"""

from tests.gpu.stand_in.array import Array, CaptureError
from tests.gpu.stand_in.cublaslt import FakeCublasLt
from tests.gpu.stand_in.module import Libraries, StandIn
from tests.gpu.stand_in.names import CUBLAS, NAMES, VIEWS

__all__ = [
    "CUBLAS",
    "NAMES",
    "VIEWS",
    "Array",
    "CaptureError",
    "FakeCublasLt",
    "Libraries",
    "StandIn",
]
