"""Core's operators, one family to a file: what is recognised, float and integer meaning, IR operator."""
