"""`python -m fascicle`: the same as the `fascicle` command."""

import sys

from fascicle.cli import main

sys.exit(main())
