"""What comes after training: export with its proof, predictions, and parity across runtimes.

``export.py``, ``predict.py`` and ``verify.py`` are the commands of these names; the rest is what they share.
Like the runtime, this reads bundles and runs, and never imports the compiler.
"""
