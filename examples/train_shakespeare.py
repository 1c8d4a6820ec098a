"""Train TinyAlpaca on Tiny Shakespeare:  python examples/train_shakespeare.py [--help]"""

import sys

from tinyalpaca.cli import example

if __name__ == "__main__":
    sys.exit(example("train"))
