"""The training room: loop, loaders, checkpoints, callbacks, schedules, metrics and the stages built from them.

``loop.train`` is the whole of training on one screen. ``trainer``, ``calibrator``, ``integer`` and ``predictor`` hold
the classes that configs name; ``environment`` is what surrounds them all (run folder, processes, signals, hooks).
"""
