"""On the path of a command, this makes it run as where matplotlib is not installed."""

import sys

sys.modules["matplotlib"] = None  # so that the import system finds none
