"""Continue a text with a trained TinyAlpaca:  python examples/generate.py [--help]"""

import sys

from tinyalpaca.cli import example

if __name__ == "__main__":
    sys.exit(example("generate"))
