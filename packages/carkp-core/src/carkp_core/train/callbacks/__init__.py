"""Callbacks: what is done beside the training step, one noun to a file. ``base`` says when each method is called."""
