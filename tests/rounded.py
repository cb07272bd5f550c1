"""tests/rounded.py: what import.sh sent through Q8_0, against what it was."""
import h5py
import numpy


def values(file, name):
    scale = file[name + "_scale"][...].astype(float)
    return file[name][...] * numpy.repeat(scale, file[name].shape[-1] // scale.shape[-1], axis=-1)


NAMES = ["attn_query", "attn_key", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
with h5py.File("tiny8.h5") as before, h5py.File("tiny8-back.h5") as after:
    for name in NAMES:
        name = "layers/001/" + name
        assert numpy.array_equal(before[name][...], after[name][...]), name  # integers kept
        assert numpy.allclose(values(before, name), values(after, name), rtol=2**-11, atol=0), name
with h5py.File("q8-1.h5") as before, h5py.File("q8-again.h5") as after:
    for name in NAMES:
        name = "layers/002/" + name
        have, want = values(after, name), values(before, name)
        step = numpy.repeat(after[name + "_scale"][...].astype(float), 32, axis=-1)
        assert (numpy.abs(have - want) <= step * 0.5001 + numpy.abs(want) * 2**-11).all(), name
