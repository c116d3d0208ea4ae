"""carkp_carfusion."""
