"""python -m inpaint_jax.report is inpaint-jax report."""

import sys

from inpaint_jax.cli import main

if __name__ == "__main__":
    sys.exit(main(["report", *sys.argv[1:]]))
