"""python train.py is inpaint-jax train."""

import sys

from inpaint_jax.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
