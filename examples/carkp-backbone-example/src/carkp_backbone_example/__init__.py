"""FunnelNet, a backbone from outside carkp, and ``maximum``, the operator that it needs."""
