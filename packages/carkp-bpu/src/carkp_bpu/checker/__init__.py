"""The operator checker: which nodes of an integer graph a march runs, and why it refuses the others."""
