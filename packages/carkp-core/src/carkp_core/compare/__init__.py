"""Comparison of two forms of one model, layer by layer: where integers part, and where errors arise."""
