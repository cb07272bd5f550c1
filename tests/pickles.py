#!/usr/bin/env python3
"""tests/pickles.py FOLDER: pickles as the official checkpoint of Grok-1 has them, made by Python's own pickler.

The class and the dtype are stand-ins: where the real ones are, pickles name them by the same words. Their output is committed
in tests/pickles, so that the suites need no Python."""
import pickle
import sys
import types

import numpy

ml_dtypes = sys.modules["ml_dtypes"] = types.ModuleType("ml_dtypes")
ml_dtypes.bfloat16 = type("bfloat16", (), {"__module__": "ml_dtypes"})


class Dtype:
    """NumPy's way to name a dtype that an extension brings: by its class, with size 2, alignment 2 and flags."""

    def __reduce__(self):
        return numpy.dtype, (ml_dtypes.bfloat16, False, True), (3, "<", None, None, None, 2, 2, 112)


class Bfloat16Array:
    def __init__(self, shape, data):
        self.shape, self.data = shape, data

    def __reduce__(self):
        start = numpy.ndarray, tuple([0]), b"b"  # a tuple of its own each time, as NumPy's
        return numpy.zeros(1).__reduce__()[0], start, (1, self.shape, DTYPE, False, self.data)


class QuantizedWeight8bit:
    def __init__(self, weight, scales):
        self.weight, self.scales = weight, scales


DTYPE = Dtype()


def write(name, value):
    data = pickle.dumps(value, 4).replace(b"\x8c\x16numpy._core.multiarray", b"\x8c\x15numpy.core.multiarray")
    with open(f"{sys.argv[1]}/{name}.pickle", "wb") as file:
        file.write(data)


def count(*shape):
    """0, 1, 2, ... as bytes, in order."""
    return (numpy.arange(numpy.prod(shape)) % 251).astype(numpy.uint8).reshape(shape)


write("norm", count(7, 4).view(numpy.float32)[:, 0])
write("embedding", count(5, 12).view(numpy.float32))
write("pair", QuantizedWeight8bit(count(2, 3, 5).view(numpy.int8), Bfloat16Array((2, 1, 5), count(20).tobytes())))
# From 64 KiB on, bytes stand between frames.
write("large", QuantizedWeight8bit(numpy.zeros((257, 300), numpy.int8), Bfloat16Array((1, 300), bytes(600))))
write("larger", QuantizedWeight8bit(numpy.zeros((2, 130, 300), numpy.int8), Bfloat16Array((2, 65, 300), bytes(78000))))
