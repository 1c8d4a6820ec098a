"""`python -m tinyalpaca`"""

import sys

from tinyalpaca.cli import main

sys.exit(main())
