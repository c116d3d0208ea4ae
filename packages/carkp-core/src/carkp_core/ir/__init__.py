"""The integer IR: explicit integers in plain numpy, one definition of the arithmetic, a slow and exact executor."""
