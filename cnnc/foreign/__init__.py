"""Foreign models: any ``.onnx`` CNN as a `cnnc.ir.Network` that can be trained.

::

    model.onnx ─► child process: checked, one opset, shapes known, batch symbolic ─► importing ─► Network
                  (reading, child, structure, opsets, walk)                          (parameters, head)

What a stranger wrote is parsed in a child process with limits of memory and time; what comes back is plain.
"""
