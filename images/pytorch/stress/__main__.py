"""`python3 -m stress`: see stress.launcher."""

import sys

from stress.launcher import main

sys.exit(main(sys.argv[1:]))
