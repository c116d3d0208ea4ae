"""The ``.hbm`` file: instruction set, encoding, listing, container."""
