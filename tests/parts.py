"""tests/parts.py: what import.sh made of parts of checkpoints, and in other types, against the whole."""
import h5py
import numpy

LAYER_TENSORS = ("attn_norm_pre attn_norm_post ffn_norm_pre ffn_norm_post attn_query attn_key attn_value attn_output router "
                 "ffn_gate ffn_up ffn_down").split()


def values(file, name):
    """Numbers as they weigh, in double precision."""
    data = file[name]
    if data.dtype == numpy.int8:
        scale = file[name + "_scale"][...].astype(float)
        return data[...] * numpy.repeat(scale, data.shape[-1] // scale.shape[-1], axis=-1)
    return data[...].astype(float)


def part(path, whole, layers, experts):
    with h5py.File(path) as some, h5py.File(whole) as every:
        assert some["config"].attrs["num_layers"] == len(layers) == len(some["layers"])
        assert some["config"].attrs["num_experts"] == len(experts)
        for new, old in enumerate(layers):
            for name in LAYER_TENSORS:
                want = values(every, f"layers/{old:03d}/{name}")
                if name == "router" or name.startswith("ffn_") and "norm" not in name:
                    want = want[experts]
                assert numpy.array_equal(values(some, f"layers/{new:03d}/{name}"), want), (path, old, name)
        assert numpy.array_equal(values(some, "embedding"), values(every, "embedding"))


part("some.h5", "model.h5", [2, 10, 11], [0, 2])
part("some8.h5", "official.h5", [1, 10], [1, 2])


def to_bf16(numbers):
    """To nearest, ties to even, by integers."""
    bits = numpy.float32(numbers).view(numpy.uint32).astype(numpy.uint64)
    low, high = bits & 0xFFFF, bits >> 16
    high += (low > 0x8000) | ((low == 0x8000) & (high & 1 == 1))
    return (high << 16).astype(numpy.uint32).view(numpy.float32).astype(float)


with h5py.File("official.h5") as file, h5py.File("f32.h5") as f32, h5py.File("bf16.h5") as bf16:
    for name in ["embedding"] + [f"layers/{layer:03d}/{name}" for layer in range(12) for name in LAYER_TENSORS]:
        want = values(file, name)
        assert f32[name].dtype == numpy.float32 and numpy.array_equal(values(f32, name), numpy.float32(want)), name
        if "norm" in name or "router" in name:
            assert bf16[name].dtype == numpy.float32
        else:
            assert bf16[name].id.get_type().get_size() == 2 and numpy.array_equal(values(bf16, name), to_bf16(want)), name

with h5py.File("transformer.h5") as file, h5py.File("int8.h5") as int8:
    for layer in range(12):
        for name in ("attn_query", "attn_output", "ffn_gate", "ffn_down"):
            path = f"layers/{layer:03d}/{name}"
            want, have, scale = values(file, path), values(int8, path), int8[path + "_scale"][...].astype(float)
            assert scale.shape[-1] == 1 and numpy.abs(int8[path][...].astype(int)).max() == 127
            assert numpy.allclose(scale[..., 0] * 127, numpy.abs(want).max(axis=-1), rtol=1e-6)
            assert (numpy.abs(have - want) <= scale * 0.50002).all(), path
    assert int8["embedding"].id.get_type().get_size() == 2
