"""cnnc and its peers side by side: the same network, the same numbers, separate processes taking turns.

::

    python -m benchmarks setup                     make an environment for each peer
    python -m benchmarks run                       the rows: time and memory of a training step
    python -m benchmarks loop                      what cnnc's training loop costs around the step
    python -m benchmarks fit --data FOLDER         `cnnc train` against a Keras script, from start to exit

From a program to a table: `networks` holds the architectures and cnnc's programs, `workers/` one process for
each framework, `driver` starts them, lets them agree on the losses and gives them turns, `report` writes.
"""
