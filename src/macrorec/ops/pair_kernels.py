"""Which compiled loop puts every pair of a user and an item through a perceptron? Tiles of items, one user at a time.

Shape letters: B users, T tiles, W items of a tile, I items, H first hidden layer, K inputs and O outputs of a layer,
L layers, F all their numbers.
"""

from __future__ import annotations

import numpy as np
from numba import njit

WIDTH = 128
"""Items of a tile: what a layer of 32 reads and writes stays in the first-level cache."""


@njit(nogil=True, cache=True, fastmath={"contract", "nsz"}, error_model="numpy")
def layer(x_KW, weight_OK, bias_O, out_OW):  # type: ignore[no-untyped-def]
    """out = W x + b, each sum in the order of K."""
    n_in, width = x_KW.shape
    for o in range(len(out_OW)):
        out_W, w_K, bias = out_OW[o], weight_OK[o], bias_O[o]
        for w in range(width):
            out_W[w] = bias
        for k in range(0, n_in - n_in % 4, 4):
            a, b, c, d = w_K[k], w_K[k + 1], w_K[k + 2], w_K[k + 3]
            x_W, y_W, z_W, v_W = x_KW[k], x_KW[k + 1], x_KW[k + 2], x_KW[k + 3]
            for w in range(width):
                total = out_W[w]
                total += a * x_W[w]
                total += b * y_W[w]
                total += c * z_W[w]
                total += d * v_W[w]
                out_W[w] = total
        for k in range(n_in - n_in % 4, n_in):
            a, x_W = w_K[k], x_KW[k]
            for w in range(width):
                out_W[w] += a * x_W[w]


@njit(nogil=True, cache=True, fastmath={"contract", "nsz"}, error_model="numpy")
def relu_of_pairs(of_user_BH, of_item_THW, widths_L, numbers_F, out_BI, lo, hi):  # type: ignore[no-untyped-def]
    """out[b, i] = W_L relu( ... relu(of_user_b + of_item_i)) + b_L for the users lo : hi.

    ``widths_L`` are H and the widths of all layers after it, the last 1; ``numbers_F`` are the matrix (O, K) and the
    bias (O,) of each of those layers, one after the other.
    """
    n_tiles, n_first, width = of_item_THW.shape
    x_HW = np.empty((widths_L.max(), width), np.float32)
    y_HW = np.empty((widths_L.max(), width), np.float32)
    n_items = out_BI.shape[1]
    for t in range(n_tiles):
        n_here = min(width, n_items - t * width)
        for b in range(lo, hi):
            for h in range(n_first):
                of_user, of_item_W, x_W = of_user_BH[b, h], of_item_THW[t, h], x_HW[h]
                for w in range(width):
                    x_W[w] = of_user + of_item_W[w]
            at = 0
            for n in range(len(widths_L) - 1):
                n_in, n_out = widths_L[n], widths_L[n + 1]
                for h in range(n_in):
                    x_W = x_HW[h]
                    for w in range(width):
                        x_W[w] = max(x_W[w], np.float32(0))
                weight_OK = numbers_F[at : at + n_out * n_in].reshape(n_out, n_in)
                at += n_out * n_in
                layer(x_HW[:n_in], weight_OK, numbers_F[at : at + n_out], y_HW[:n_out])
                at += n_out
                x_HW, y_HW = y_HW, x_HW
            for w in range(n_here):
                out_BI[b, t * width + w] = x_HW[0, w]
