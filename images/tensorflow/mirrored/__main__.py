"""`python3 -m mirrored`: see training.launcher."""

import sys

from mirrored.program import PROGRAM
from training.launcher import main

sys.exit(main(sys.argv[1:], PROGRAM))
