"""``python -m carkp_core``, which torchrun needs."""

from carkp_core.cli import main

if __name__ == "__main__":
    main()
