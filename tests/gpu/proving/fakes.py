"""Fake sections and contenders, some faulty on purpose, to test how they are run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any


def finds(save: Any, clock: Any) -> dict[str, Any]:
    return {"found": 1, "left": clock.left > 0, "toy": clock.toy}


def fails(save: Any, clock: Any) -> dict[str, Any]:
    save({"found": 2})
    raise RuntimeError("no such luck")


def hangs(save: Any, clock: Any) -> dict[str, Any]:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    save({"found": 3, "child": child.pid})
    time.sleep(60)
    return {}


def dies(save: Any, clock: Any) -> dict[str, Any]:
    os._exit(9)


class Steps:
    """A contender whose step takes a given time; it can be told to misbehave."""

    def __init__(self, seconds: float, bad: str = "") -> None:
        self.seconds, self.bad = seconds, bad

    def turn(self, count: int) -> float:
        if self.bad == "fails":
            raise ValueError("out of memory")
        if self.bad == "dies":
            os._exit(1)
        if self.bad == "hangs":
            time.sleep(60)
        return self.seconds
