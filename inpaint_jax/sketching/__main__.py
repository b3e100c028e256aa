"""python -m inpaint_jax.sketching is inpaint-jax sketch."""

import sys

from inpaint_jax.cli import main

if __name__ == "__main__":
    sys.exit(main(["sketch", *sys.argv[1:]]))
