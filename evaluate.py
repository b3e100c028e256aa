"""python evaluate.py is inpaint-jax evaluate."""

import sys

from inpaint_jax.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
