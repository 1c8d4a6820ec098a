"""What the engine is doing in this thread."""

from __future__ import annotations

import threading
from typing import Any


class State(threading.local):
    """The switches of a thread. Class attributes are each thread's first values."""

    grad_enabled = True
    textbook = False
    detect_nan = False
    keep_inputs = True
    modules: tuple[Any, ...] = ()  # the nn.Modules that are running, outermost first


STATE = State()
