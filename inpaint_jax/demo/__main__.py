"""python -m inpaint_jax.demo is inpaint-jax demo."""

import sys

from inpaint_jax.cli import main

if __name__ == "__main__":
    sys.exit(main(["demo", *sys.argv[1:]]))
