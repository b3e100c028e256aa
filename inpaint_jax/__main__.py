"""python -m inpaint_jax COMMAND is inpaint-jax COMMAND."""

import sys

from inpaint_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
