"""Two simulators of one arithmetic: ``graph`` executes an integer model fast, ``machine`` executes a ``.hbm``."""
