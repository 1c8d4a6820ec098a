"""A stand-in for CuPy on NumPy, stricter than CuPy: `--device gpu` without a GPU.

Arrays are NumPy arrays in a wrapper that NumPy functions do not accept. Mistakes that a GPU would
report late or never raise an error here:

- host and device arrays do not mix, and a device array becomes a host array by `get` only;
- memory from `empty` is full of 0xff bytes (as floats: NaN) and lies between guards of such bytes.
  The guards are checked after every kernel, so that reads and writes beside an array are found;
- raw kernels take device arrays and typed scalars, and run through the CPU shim;
- while a stream captures, nothing is executed or copied; `Graph.launch` runs what was recorded.

Launches and transfers are counted. `names.py` lists the functions of the stand-in.
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
