"""Is carkp's integer arithmetic TOSA's, and its ONNX what the standard says? Proof by tests that nobody here wrote.

Run by ``nox -s conformance``; ``docs/conformance.md`` tells how to read what it prints. Two environments take part,
since ``tosa-tools`` pins an old numpy; they exchange files::

    the tools' environment                            carkp's environment
    ----------------------                            -------------------
    generate.py: TOSA's own test generator
    reference_model.py: its expected outputs
        program.py: program.json and .npy     ->      translate.py: the program as a graph of the integer IR
                                                      run.py: both executors, compared bit for bit
    sample_digests.py: what the model says
        of sample.py's programs               ->      sample.json; fuse.py: the fast tests run them, fused
                                                      onnx_nodes.py: ONNX's own node tests

Modules on the left, ``program.py``, ``draft.py`` and ``sample.py`` run without carkp installed.
"""
