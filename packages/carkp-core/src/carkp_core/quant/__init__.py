"""From a float network to the integer IR: trace, lower, fold, fuse, annotate, calibrate or train, convert."""
