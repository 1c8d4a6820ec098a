"""On a command's path, this makes it run as if matplotlib were not installed."""

import sys

sys.modules["matplotlib"] = None  # so that the import system finds none
