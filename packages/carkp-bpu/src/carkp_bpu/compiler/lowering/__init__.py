"""One module for each family of operators: what a tile needs, its parameters, its instructions."""
