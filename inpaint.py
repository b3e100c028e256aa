"""python inpaint.py is inpaint-jax fill."""

import sys

from inpaint_jax.cli import main

if __name__ == "__main__":
    sys.exit(main(["fill", *sys.argv[1:]]))
