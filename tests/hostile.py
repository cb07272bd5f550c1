"""tests/hostile.py: checkpoints that are damaged or meant to do harm, made from those of tests/checkpoints.c in the working
folder. Prints a line for each: its name, then words that the message must have, between tabs."""
import json
import os
import pickle
import shutil
import struct


def refused(name, *words):
    print("\t".join((name,) + words))


# ---- pickles ----


def folder(name, number, data=None, change=None):
    """A copy of the official form in which one file has other bytes, or is not there (data and change None)."""
    os.makedirs(name)
    for file in os.listdir("official"):
        os.symlink(os.path.abspath(f"official/{file}"), f"{name}/{file}")
    path = f"{name}/tensor{number:05d}_000"
    with open(path, "rb") as file:
        old = file.read()
    os.unlink(path)
    if change:
        data = change(old)
    if data is not None:
        with open(path, "wb") as file:
            file.write(data)
    return path


class Harm:
    def __reduce__(self):
        return os.system, ("touch harm",)


MAIN = b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00"
for protocol in (2, 4):
    path = folder(f"command{protocol}", 1, pickle.dumps(Harm(), protocol))
    refused(f"command{protocol}", path, "protocol" if protocol == 2 else '"system" of the module "posix"', "nothing was executed")
folder("global", 1, b"\x80\x04cos\nsystem\n(S'touch harm'\ntR.")
refused("global", "tensor00001_000", "0x63 (GLOBAL)", "byte 2")
folder("call", 1, b"\x80\x04\x8c\x05numpy\x8c\x07ndarray\x93(K\x01tR.")
refused("call", "tensor00001_000", "would be called", "byte 23")
folder("long", 2, change=lambda old: old.replace(b"B", b"B", 1)[:2] + b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f")
refused("long", "tensor00002_000", "more bytes than the file has")
folder("negative", 2, b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\xff.")
refused("negative", "more bytes than the file has")
folder("frame", 2, b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xff.")
refused("frame", "frame longer than the file")
folder("tail", 1, change=lambda old: old + b"x")
refused("tail", "tensor00001_000", "but not the file")
folder("cut", 5, change=lambda old: old[:-200])
refused("cut", "tensor00005_000")
folder("big-endian", 1, change=lambda old: old.replace(b"\x8c\x01<", b"\x8c\x01>"))
refused("big-endian", "little-endian")
folder("double", 1, change=lambda old: old.replace(b"\x8c\x02f4", b"\x8c\x02f8"))
refused("double", "dtype other than")
folder("fortran", 0, change=lambda old: old.replace(b"b\x89B", b"b\x88B"))
refused("fortran", "Fortran")
folder("deep", 1, b"\x80\x04" + b"(" * 100000)
refused("deep", "more marks than ever")
folder("wide", 1, b"\x80\x04" + b"N" * 100000)
refused("wide", "more values are on the stack than ever")
folder("shape", 1, change=lambda old: old.replace(b"(K\x01K\x2e\x85", b"(K\x01K\x2d\x85"))
refused("shape", "shape and bytes do not agree")
folder("other-shape", 1, change=lambda _: open("official/tensor00000_000", "rb").read())
refused("other-shape", "tensor00001_000", "[53, 46]", "emb_size")
folder("infinite", 1, change=lambda old: old[:-45] + struct.pack("<f", float("inf")) + old[-41:])
refused("infinite", "tensor00001_000", "NaN or infinity")
for number, words in ((0, ("/embedding",)), (26, ("/layers/010/ffn_gate",))):
    folder(f"without{number}", number)
    refused(f"without{number}", "is missing", *words)
os.makedirs("layers")
for file in os.listdir("official"):
    if not 26 <= int(file[6:11]) < 50:  # layers 10 and 11
        os.symlink(os.path.abspath(f"official/{file}"), f"layers/{file}")
refused("layers", "2 of 12 layers are missing: 10, 11")
os.makedirs("divided")
shutil.copy("official/tensor00000_000", "divided/tensor00000_001")
refused("divided", "undivided")

# ---- safetensors ----


def parts(path):
    with open(path, "rb") as file:
        data = file.read()
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8:8 + length]), data[8 + length:]


HEADER, NUMBERS = parts("transformer/model.safetensors")
NORM = "transformer.rms_norm.weight"
QUERY = "transformer.decoder_layer.3.multi_head_attention.query.weight"


def tensors(name, *words, header=None, text=None, length=None, config=None, change=None):
    os.makedirs(name)
    if change:
        header = json.loads(json.dumps(HEADER))
        change(header)
    text = json.dumps(header or HEADER).encode() if text is None else text
    with open(f"{name}/model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text) if length is None else length) + text + NUMBERS)
    with open("transformer/config.json") as file:
        settings = json.load(file)
    settings.update(config or {})
    with open(f"{name}/config.json", "w") as file:
        json.dump(settings, file)
    refused(name, f"{name}", *words)


def entry(name, **new):
    return lambda header: header[name].update(new)


begin, end = HEADER[QUERY]["data_offsets"]
tensors("st-length", "its header should have", length=2**63)
tensors("st-length2", "its header should have", length=2**64 - 1)
tensors("st-json", "not JSON", text=b'{"a": ')
tensors("st-list", "no JSON object", text=b"[1, 2]")
tensors("st-nul", "no JSON object", text=b'{"a"\0: 1}')
tensors("st-deep", "nested too deep", text=b'{"a":' * 5000 + b"1" + b"}" * 5000)
tensors("st-deep2", "more parts than", text=b"[" * 100000)
tensors("st-many", "more parts than", text=b"[" + b"1," * 3000000 + b"1]")
tensors("st-outside", QUERY, "but the file has", change=entry(QUERY, data_offsets=[begin + 2**40, end + 2**40]))
tensors("st-overlap", "overlap", QUERY, change=lambda h: h[NORM].update(data_offsets=[begin, begin + 92]))
tensors("st-short", "data_offsets are", change=entry(QUERY, data_offsets=[begin, end - 2]))
tensors("st-reverse", "begin and end", change=entry(QUERY, data_offsets=[end, begin]))
tensors("st-minus", "begin and end", change=entry(QUERY, data_offsets=[-8, begin]))
tensors("st-fraction", "whole numbers", change=entry(QUERY, shape=[60.5, 46]))
tensors("st-overflow", QUERY, "cannot have", change=entry(QUERY, shape=[2**31, 2**31, 4]))
tensors("st-zero", QUERY, "cannot have", change=entry(QUERY, shape=[0, 46]))
tensors("st-axes", "whole numbers", change=entry(QUERY, shape=[1] * 9))
tensors("st-dtype", "F64", change=entry(QUERY, dtype="F64"))
tensors("st-turned", QUERY, "[46, 60]", "num_q_heads * key_size", change=entry(QUERY, shape=[46, 60]))
tensors("st-unknown", "transformer.what", change=lambda h: h.update({"transformer.what": h.pop(QUERY)}))
tensors("st-missing", "/layers/003/attn_query", "missing", change=lambda h: h.pop(QUERY))
tensors("st-expert", "/layers/002/ffn_up", "missing", change=lambda h: h.pop("transformer.decoder_layer.2.moe.1.linear_v.weight"))
tensors("st-layer", "layers are missing: 5", change=lambda h: [h.pop(n) for n in list(h) if ".decoder_layer.5." in n])
tensors("st-nothing", "1000 of 1000 layers are missing", config={"num_hidden_layers": 1000, "num_experts": 65536},
        change=lambda h: [h.pop(n) for n in list(h) if ".decoder_layer." in n])
tensors("st-twice", "twice", change=lambda h: h.update({"model.norm.weight": h[NORM] | {"data_offsets": [len(NUMBERS) - 184, len(NUMBERS)]}}) or [h.pop(n) for n in list(h) if h[n].get("data_offsets", [0, 0])[1] > len(NUMBERS) - 184 and n != "model.norm.weight"])
duplicate = json.dumps(HEADER)[:-1] + ", " + json.dumps({NORM: HEADER[NORM]})[1:]
tensors("st-duplicate", NORM, text=duplicate.encode())
tensors("st-config", "hidden_size" and "emb_size", config={"hidden_size": 48})
tensors("st-config2", "12", "11", config={"num_hidden_layers": 11})
tensors("st-config3", "layers are missing: 12, 13", config={"num_hidden_layers": 14})
tensors("st-config4", "must be a number", config={"num_attention_heads": "six"})
tensors("st-config5", "num_q_heads is -1", config={"num_attention_heads": 6.5})
tensors("st-config6", "emb_size is -1", config={"hidden_size": 1e300})

# ---- shards ----


def shards(name, *words, change):
    shutil.copytree("model", name)
    path = f"{name}/model.safetensors.index.json"
    with open(path) as file:
        index = json.load(file)
    change(name, index["weight_map"])
    with open(path, "w") as file:
        json.dump(index, file)
    refused(name, name, *words)


def link(name, _):
    os.unlink(f"{name}/model-00002-of-00005.safetensors")
    os.symlink(os.path.abspath("model/model-00002-of-00005.safetensors"), f"{name}/model-00002-of-00005.safetensors")


def head(name, weights):
    header, numbers = parts(f"{name}/{weights['lm_head.weight']}")
    at = header["lm_head.weight"]["data_offsets"][0] + 46 * 2 * 7
    numbers = numbers[:at] + bytes([numbers[at] ^ 1]) + numbers[at + 1:]
    text = json.dumps(header).encode()
    with open(f"{name}/{weights['lm_head.weight']}", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + numbers)


FIRST = "model.embed_tokens.weight"
shards("path-up", "names no file of its folder", change=lambda n, w: w.update({FIRST: "../model/model-00001-of-00005.safetensors"}))
shards("path-absolute", "names no file of its folder", change=lambda n, w: w.update({FIRST: os.path.abspath("model/model-00001-of-00005.safetensors")}))
shards("path-dots", "names no file of its folder", change=lambda n, w: w.update({FIRST: ".."}))
shards("path-link", "leads out of its folder", "--follow-links", change=link)
shards("no-map", "names no file of its folder", change=lambda n, w: w.update({FIRST: 7}))
shards("head", "lm_head.weight", "first in row 7", change=head)
shutil.copytree("model", "no-weight-map")
with open("no-weight-map/model.safetensors.index.json", "w") as out:
    out.write("{}")
refused("no-weight-map", "weight_map")

# ---- GGUF ----

os.makedirs("gguf-link")
for part in (1, 3):
    shutil.copy(f"split-0000{part}-of-00003.gguf", "gguf-link")
os.symlink(os.path.abspath("split-00002-of-00003.gguf"), "gguf-link/split-00002-of-00003.gguf")
for path in ("gguf-link", "gguf-link/split-00001-of-00003.gguf"):
    refused(path, "leads out of its folder", "--follow-links")

with open("gguf.gguf", "rb") as source:
    GGUF = source.read()


def text_of(words):
    return struct.pack("<Q", len(words)) + words.encode()


def gguf(name, *words, data):
    with open(f"{name}.gguf", "wb") as file:
        file.write(data)
    refused(f"{name}.gguf", f"{name}.gguf", *words)


ENTRY = text_of("blk.4.attn_q.weight") + struct.pack("<I", 2)
at = GGUF.index(ENTRY) + len(ENTRY)  # dims, type, offset


def patch(place, data):
    return GGUF[:place] + data + GGUF[place + len(data):]


gguf("g-version", "version of GGUF", data=patch(4, struct.pack("<I", 9)))
gguf("g-big", "big-endian", data=patch(4, struct.pack(">I", 3)))
gguf("g-arch", "not grok but llama", data=GGUF.replace(text_of("grok"), text_of("llama"), 1))
gguf("g-count", data=patch(8, struct.pack("<Q", 2**62)))
gguf("g-keys", "", data=patch(16, struct.pack("<Q", 2**62)))
gguf("g-text", "the file ends", data=patch(24, struct.pack("<Q", 2**63 + 5)))
gguf("g-list", "the file ends", data=GGUF.replace(struct.pack("<IIQ", 9, 8, 3), struct.pack("<IIQ", 9, 8, 2**60)))
gguf("g-list2", "the file ends", data=GGUF.replace(struct.pack("<IIQ", 9, 8, 3), struct.pack("<IIQ", 9, 12, 2**61)))
gguf("g-nested", "unknown type", data=GGUF.replace(struct.pack("<IIQ", 9, 8, 3), struct.pack("<IIQ", 9, 9, 3)))
gguf("g-type", "GGML type 12", "blk.4.attn_q.weight", data=patch(at + 16, struct.pack("<I", 12)))
gguf("g-rank", "axes", "blk.4.attn_q.weight", data=patch(at - 4, struct.pack("<I", 5)))
gguf("g-dims", "cannot have", data=patch(at, struct.pack("<QQ", 2**40, 2**40)))
gguf("g-dims2", "cannot have", data=patch(at, struct.pack("<QQ", 2**64 - 1, 2)))
gguf("g-offset", "not aligned", data=patch(at + 20, struct.pack("<Q", 3)))
gguf("g-outside", "but the file has", data=patch(at + 20, struct.pack("<Q", 2**50)))
gguf("g-overlap", "overlap", data=patch(at + 20, struct.pack("<Q", 64)))
gguf("g-name", "blk.4.attn_X.weight", data=GGUF.replace(b"blk.4.attn_q.weight", b"blk.4.attn_X.weight"))
gguf("g-twice", "twice", "blk.4.attn_k.weight", data=GGUF.replace(b"blk.4.attn_v.weight", b"blk.4.attn_k.weight"))
gguf("g-align", "general.alignment", data=GGUF.replace(text_of("general.alignment") + struct.pack("<II", 4, 64), text_of("general.alignment") + struct.pack("<II", 4, 0)))
gguf("g-q8", "Q8_0", "cannot have", data=patch(at + 16, struct.pack("<I", 8)))
gguf("g-cut", "but the file has", data=GGUF[:-100])
for length in (0, 3, 4, 10, 24, 30, 500):
    gguf(f"g-cut{length}", data=GGUF[:length])
