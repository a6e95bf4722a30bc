"""Depthwise convolutions, a filter [kh, kw] for each channel, in [C, N, H, W] and [C, N/b, H, W, b].

Each channel is a matrix of its own, so a filter is a banded matrix from the right, one product for each
channel: of whole maps where these are small (`toeplitz`), else of rows, or of as many rows as a stride takes
(`rows`). The band is the filter times a constant 0/1 matrix, and its gradient goes back through the same.

On ONNX Runtime's CPU build a blocked convolution (`blocked`) is faster in all three passes, and in
[C, N/b, H, W, b] it takes a map as it lies.
"""

from cnnc.layout.depthwise import blocked, rows, toeplitz

__all__ = ["blocked", "rows", "toeplitz"]
