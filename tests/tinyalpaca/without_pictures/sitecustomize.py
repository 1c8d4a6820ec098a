"""On a command's path, this file makes it run as if matplotlib were not installed."""

import sys

sys.modules["matplotlib"] = None  # so that importing it fails
