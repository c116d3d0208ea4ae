"""Repair passes: what is done to a network so that quantizing it costs less. One file each."""
