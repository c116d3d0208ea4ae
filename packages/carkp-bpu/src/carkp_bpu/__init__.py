"""carkp_bpu."""
