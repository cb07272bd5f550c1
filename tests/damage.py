"""damage.py FOLDER: from the good weights files f32.h5, bf16.h5, int8.h5, wide-f32.h5 and wide-bf16.h5 in FOLDER make damaged
ones beside them.

Prints a line for each: its name, the numbers of ranks to try it at, and the words that the program's message must have; tabs
between. Beside those that must be refused it makes chunked.h5, gzip.h5 and links.h5, which hold the same model as f32.h5.
The model: 2 layers of 3 experts of 20 biased neurons, 12 wide, 4 query and 2 key/value heads of 6, vocabulary 40; the wide one: 1
layer of 8 experts of 256 neurons, 64 wide.
"""
import shutil
import sys

import h5py
import numpy as np

folder = sys.argv[1]
L0, L1 = "/layers/000/", "/layers/001/"
MISSING = "is missing"


def damaged(name, *words, of="f32", ranks="1 4"):
    """A copy to damage, announced on standard output."""
    print(name + ".h5", ranks, name + ".h5", *words, sep="\t")
    shutil.copy(f"{folder}/{of}.h5", f"{folder}/{name}.h5")
    return h5py.File(f"{folder}/{name}.h5", "r+")


def replace(file, name, **new):
    """A dataset of other data, shape or type; the old numbers where none are given."""
    new.setdefault("data", file[name][...]) if "shape" not in new else None
    del file[name]
    file.create_dataset(name, **new)


def set_number(file, name, index, value):
    numbers = file[name][...]
    numbers[index] = value
    file[name][...] = numbers


# ---- other files of HDF5 ----
with h5py.File(f"{folder}/empty.h5", "w"):
    print("empty.h5", "1 4", "empty.h5", 'no attribute "format"', sep="\t")
with h5py.File(f"{folder}/other.h5", "w") as file:
    print("other.h5", "1 4", "other.h5", 'no attribute "format"', sep="\t")
    file["temperature"] = np.arange(10.0)
    file["temperature"].attrs["units"] = "K"
with damaged("foreign", '"netcdf-4"', "expertmesh-weights") as file:
    file.attrs["format"] = "netcdf-4"
with damaged("format-number", '"format"', "int64", "a string", ranks="1") as file:
    file.attrs["format"] = 3
with damaged("version-2", "format_version 2", "version 1") as file:
    file.attrs["format_version"] = 2
with damaged("version-none", '"format_version"', MISSING, ranks="1") as file:
    del file.attrs["format_version"]

# ---- the config ----
with damaged("config-none", "/config", MISSING) as file:
    del file["config"]
with h5py.File(f"{folder}/f32.h5") as file:
    fields = dict(file["config"].attrs)
for field, value in fields.items():
    text = isinstance(value, str)
    whole = not text and np.asarray(value).dtype.kind == "i"
    wanted = "a string" if text else "a whole number" if whole else "a number"
    with damaged("no-" + field, f'"{field}"', "/config", MISSING, wanted, ranks="1") as file:
        del file["config"].attrs[field]
    with damaged("class-" + field, f'"{field}"', "int64" if text else "text", wanted, ranks="1") as file:
        file["config"].attrs[field] = 1 if text else "twelve"
    if whole:
        with damaged("real-" + field, f'"{field}"', "float64", "a whole number", ranks="1") as file:
            file["config"].attrs[field] = 2.5
    if not text:
        with damaged("zero-" + field, f"{field} is 0", "must be", ranks="1") as file:
            file["config"].attrs[field] = value * 0
for name, words, values in [
    ("heads", ["num_q_heads is 4", "multiple of num_kv_heads, 3"], {"num_kv_heads": 3}),
    ("selected", ["num_selected_experts is 4", "only 3 experts"], {"num_selected_experts": 4}),
    ("odd-key", ["key_size is 5", "even"], {"key_size": 5}),
    ("negative", ["emb_size is -12", "from 1 to"], {"emb_size": -12}),
    ("vast", ["vocab_size is 9223372036854775807", "from 1 to"], {"vocab_size": 2**63 - 1}),
    ("eps-nan", ["rms_norm_eps is nan", "above 0"], {"rms_norm_eps": float("nan")}),
    ("cap-inf", ["attn_logit_softcap is inf", "above 0"], {"attn_logit_softcap": float("inf")}),
    ("kind", ['ffn_kind of /config is "gelu"', "glu or mlp"], {"ffn_kind": "gelu"}),
    ("kind-array", ['"ffn_kind"', "not one value", "a string"], {"ffn_kind": ["glu", "mlp"]}),
    ("array", ['"emb_size"', "not one value", "a whole number"], {"emb_size": [12, 12]}),
    ("glu", [L0 + "ffn_gate", MISSING], {"ffn_kind": "glu"}),
    ("layer-more", ["/layers/002/", MISSING], {"num_layers": 3}),
    ("narrower", ["/embedding", "[40, 12]", "[vocab_size, emb_size] = [40, 11]"], {"emb_size": 11}),
]:
    several = name in ("heads", "selected", "odd-key", "kind", "glu", "layer-more")
    with damaged(name, *words, ranks="1 4" if several else "1") as file:
        for field, value in values.items():
            file["config"].attrs[field] = value

# ---- datasets that are not there ----
for name in ["/embedding", "/final_norm", L0 + "attn_norm_pre", L1 + "attn_query", L1 + "router", L0 + "ffn_up",
             L1 + "ffn_down", L1 + "ffn_up_bias", L0 + "ffn_down_bias"]:
    with damaged("without" + name.replace("/", "-"), name, MISSING, ranks="4" if "ffn" in name else "1") as file:
        del file[name]
with damaged("layers-none", "/layers/000/", MISSING) as file:
    del file["layers"]
with damaged("layer-none", "/layers/001/", MISSING) as file:
    del file["layers/001"]
with damaged("group", L0 + "ffn_up", MISSING) as file:
    del file[L0 + "ffn_up"]
    file.create_group(L0 + "ffn_up")
with damaged("link-lost", L0 + "router", MISSING) as file:
    del file[L0 + "router"]
    file[L0 + "router"] = h5py.SoftLink("/nowhere")
with damaged("file-lost", L1 + "router", MISSING) as file:
    del file[L1 + "router"]
    file[L1 + "router"] = h5py.ExternalLink("not-there.h5", "/router")
with damaged("source-lost", L1 + "attn_value", "virtual", "contiguous or chunked") as file:
    del file[L1 + "attn_value"]
    layout = h5py.VirtualLayout((12, 12), "f4")
    layout[:] = h5py.VirtualSource("not-there.h5", "/value", (12, 12))
    file.create_virtual_dataset(L1 + "attn_value", layout)

# ---- shapes ----
for name, dataset, shape, wanted in [
    ("wide", L1 + "ffn_up", (3, 20, 13), "[num_experts, ffn_size, emb_size] = [3, 20, 12]"),
    ("transposed", L0 + "ffn_up", (3, 12, 20), "[num_experts, ffn_size, emb_size] = [3, 20, 12]"),
    ("flat", L0 + "ffn_down", (36, 20), "[num_experts, emb_size, ffn_size] = [3, 12, 20]"),
    ("scalar", L0 + "attn_output", (), "[emb_size, num_q_heads * key_size] = [12, 24]"),
    ("nothing", L0 + "attn_query", (0, 12), "[num_q_heads * key_size, emb_size] = [24, 12]"),
    ("norm-long", "/final_norm", (13,), "[emb_size] = [12]"),
    ("norm-matrix", L1 + "ffn_norm_post", (1, 12), "[emb_size] = [12]"),
    ("router-short", L1 + "router", (2, 12), "[num_experts, emb_size] = [3, 12]"),
    ("bias-long", L1 + "ffn_up_bias", (3, 21), "[num_experts, ffn_size] = [3, 20]"),
    ("bias-short", L1 + "ffn_down_bias", (3, 11), "[num_experts, emb_size] = [3, 12]"),
    ("vocabulary", "/embedding", (41, 12), "[vocab_size, emb_size] = [40, 12]"),
]:
    found = str(list(shape))
    several = name in ("wide", "norm-long", "router-short", "bias-long")
    with damaged("shape-" + name, dataset, "has shape " + found, wanted, ranks="1 4" if several else "1") as file:
        replace(file, dataset, shape=shape, dtype="f4")
with damaged("axes", L0 + "router", "5 axes", ranks="1") as file:
    replace(file, L0 + "router", shape=(1, 1, 3, 12, 1), dtype="f4")

# ---- types ----
for name, dtype, found in [
    ("float64", "<f8", "float64"),
    ("float16", "<f2", "float16"),
    ("big-endian", ">f4", "big-endian float32"),
    ("big-endian-64", ">f8", "big-endian float64"),
    ("int32", "<i4", "int32"),
    ("uint8", "u1", "uint8"),
    ("text", h5py.string_dtype(), "text"),
    ("compound", [("real", "f4"), ("imaginary", "f4")], "neither a number nor text"),
]:
    several = name in ("float64", "float16", "big-endian")
    with damaged("type-" + name, L0 + "ffn_up", f"stored as {found},", "float32, bfloat16 or int8",
                 ranks="1 4" if several else "1") as file:
        replace(file, L0 + "ffn_up", shape=(3, 20, 12), dtype=dtype)
with h5py.File(f"{folder}/bf16.h5") as file:
    bfloat16 = file[L0 + "ffn_up"].id.get_type().copy()
for dataset, shape in [("/final_norm", (12,)), (L1 + "router", (3, 12)), (L1 + "ffn_up_bias", (3, 20))]:
    name = dataset.split("/")[-1]
    with damaged("half-" + name, dataset, "stored as bfloat16", "float32: norms, biases and routers") as file:
        del file[dataset]
        h5py.h5d.create(file.id, dataset.encode(), bfloat16, h5py.h5s.create_simple(shape)).close()
    with damaged("byte-" + name, dataset, "stored as int8", "float32: norms", ranks="1") as file:
        replace(file, dataset, shape=shape, dtype="i1")
    with damaged("double-" + name, dataset, "stored as float64", "float32: norms", ranks="1") as file:
        replace(file, dataset, shape=shape, dtype="f8")

# ---- scales of int8 ----
up, down = L1 + "ffn_up_scale", L0 + "ffn_down_scale"
with damaged("scale-none", up, MISSING, of="int8") as file:
    del file[up]
with damaged("scale-double", up, "stored as float64", "float32", of="int8") as file:
    replace(file, up, shape=(3, 20, 1), dtype="f8")
for name, dataset, shape, words in [
    ("scale-groups", up, (3, 20, 5), ["[3, 20, 5]", "divides its 12 inputs"]),
    ("scale-many", down, (3, 12, 21), ["[3, 12, 21]", "divides its 20 inputs"]),
    ("scale-zero", down, (3, 12, 0), ["[3, 12, 0]", "divides its 20 inputs"]),
    ("scale-rows", up, (3, 19, 1), ["[3, 19, 1]", "that of its rows"]),
    ("scale-flat", up, (3, 20), ["[3, 20]", "that of its rows"]),
]:
    with damaged(name, dataset, *words, of="int8", ranks="1 4" if name == "scale-groups" else "1") as file:
        replace(file, dataset, shape=shape, dtype="f4")

# ---- numbers that are none ----
for name, of, dataset, index, value in [
    ("nan-first", "f32", "/embedding", (0, 0), np.nan),
    ("nan-last", "f32", "/embedding", (39, 11), np.nan),
    ("inf-norm", "f32", "/final_norm", (7,), np.inf),
    ("nan-query", "f32", L1 + "attn_query", (23, 11), np.nan),
    ("nan-output", "f32", L1 + "attn_output", (3, 22), np.nan),
    ("inf-key", "f32", L0 + "attn_key", (6, 0), -np.inf),
    ("nan-router", "f32", L1 + "router", (2, 5), np.nan),
    ("nan-up", "f32", L1 + "ffn_up", (2, 19, 11), np.nan),
    ("nan-down", "f32", L0 + "ffn_down", (1, 11, 13), np.nan),
    ("nan-bias", "f32", L1 + "ffn_up_bias", (1, 3), np.nan),
    ("inf-bias", "f32", L0 + "ffn_down_bias", (2, 11), np.inf),
    ("nan-scale", "int8", L1 + "ffn_down_scale", (2, 3, 0), np.nan),
    ("inf-scale", "int8", L0 + "attn_key_scale", (11, 0), np.inf),
]:
    layer = [f"layer {int(dataset[8:11])}:"] if dataset.startswith("/layers") else []
    what = "NaN" if np.isnan(value) else "infinite"
    with damaged(name, *layer, f"{dataset}{list(index)} is {what}", "finite", of=of) as file:
        set_number(file, dataset, index, value)
for name, of, dataset, index, pattern, what in [
    ("nan-half", "bf16", L1 + "ffn_up", (1, 7, 5), 0x7FC1, "NaN"),
    ("inf-half", "bf16", L1 + "ffn_up", (1, 7, 5), 0xFF80, "infinite"),
    ("nan-up-wide", "wide-f32", L0 + "ffn_up", (6, 100, 37), 0x7F800001, "NaN"),
    ("inf-down-wide", "wide-f32", L0 + "ffn_down", (1, 17, 77), 0xFF800000, "infinite"),  # in a slice's columns
    ("nan-up-wide-half", "wide-bf16", L0 + "ffn_up", (7, 255, 63), 0xFFC0, "NaN"),
    ("inf-down-wide-half", "wide-bf16", L0 + "ffn_down", (5, 63, 224), 0x7F80, "infinite"),
]:
    size = 2 if "bf16" in of else 4
    with damaged(name, f"layer {int(dataset[8:11])}:", f"{dataset}{list(index)} is {what}", "finite", of=of) as file:
        offset = file[dataset].id.get_offset() + size * int(np.ravel_multi_index(index, file[dataset].shape))
    with open(f"{folder}/{name}.h5", "r+b") as raw:
        raw.seek(offset)
        raw.write(pattern.to_bytes(size, "little"))
with damaged("nan-many", "layer ", " is NaN") as file:  # every rank has some, and one of them speaks
    for layer in (L0, L1):
        for tensor in ("attn_query", "ffn_up", "ffn_down", "ffn_norm_pre"):
            file[layer + tensor][...] = np.nan
with damaged("nan-chunked", "layer 1:", L1 + "ffn_up[2, 19, 11] is NaN") as file:
    numbers = file[L1 + "ffn_up"][...]
    numbers[2, 19, 11] = np.nan
    replace(file, L1 + "ffn_up", data=numbers, chunks=(2, 7, 5), compression="gzip")

# ---- bytes that HDF5 itself does not understand ----
with open(f"{folder}/f32.h5", "rb") as good:
    good = good.read()
rng = np.random.default_rng(1)
for name, content in [
    ("text", b"these are not the weights you are looking for\n" * 50),
    ("zeros", bytes(4096)),
    ("signature", good[:8]),
    ("signature-zeros", good[:8] + bytes(4096)),
    ("signature-noise", good[:8] + rng.bytes(4096)),
    ("superblock", good[:8] + b"\xc8" + good[9:]),
    ("late", good[:1] + good),
]:
    with open(f"{folder}/{name}.h5", "wb") as file:
        file.write(content)
    print(name + ".h5", "1 4" if name in ("text", "signature-noise") else "1", name + ".h5", sep="\t")

# ---- the same model, stored differently ----
for name in ["chunked", "gzip", "links"]:
    shutil.copy(f"{folder}/f32.h5", f"{folder}/{name}.h5")
with h5py.File(f"{folder}/chunked.h5", "r+") as file:
    replace(file, L0 + "ffn_up", chunks=(2, 7, 5))
    replace(file, L1 + "ffn_down", chunks=(1, 12, 3))
    replace(file, "/embedding", chunks=(9, 4))
    replace(file, "/final_norm", chunks=(5,))
    replace(file, L0 + "ffn_up_bias", chunks=(2, 6))
with h5py.File(f"{folder}/gzip.h5", "r+") as file:
    for name in ["attn_query", "attn_output", "router", "ffn_up", "ffn_down", "ffn_down_bias"]:
        replace(file, L1 + name, compression="gzip", shuffle=True)
with h5py.File(f"{folder}/links.h5", "r+") as file:
    for name in ["attn_query", "ffn_up", "router"]:
        del file[L1 + name]
        file[L1 + name] = h5py.ExternalLink("f32.h5", L1 + name)
