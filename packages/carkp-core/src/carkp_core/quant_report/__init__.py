"""``carkp quant-report``: what quantization costs a config's model, layer by layer, on its own data."""
