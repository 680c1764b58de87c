"""`python3 -m serve`: see serve.launcher."""

import sys

from serve.launcher import main

sys.exit(main(sys.argv[1:]))
