#!/usr/bin/env python3
"""tests/fuzz/corpus.py: makes the small files that the fuzzers start from, in corpus/: whole models, and parts of files."""
import json
import os
import struct

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus")
D, H, C, E, F, V = 32, 2, 16, 2, 32, 3
T, M = "transformer.decoder_layer.0.", "model.layers.0."
SHAPES = {"embedding": [V, D], "norm": [D], "query": [H * C, D], "output": [D, H * C], "router": [E, D], "up": [F, D], "down": [D, F]}
CONFIG = {"hidden_size": D, "intermediate_size": F, "num_hidden_layers": 1, "num_attention_heads": H, "num_key_value_heads": H,
          "num_experts": E, "num_experts_per_tok": 1, "vocab_size": V, "rms_norm_eps": 1e-5, "max_attn_value": 30.0}
PORT = {"transformer.in_out_embed.weight": "embedding", "transformer.rms_norm.weight": "norm", T + "router.weight": "router"}
OTHER = {"model.embed_tokens.weight": "embedding", "lm_head.weight": "embedding", "model.norm.scale": "norm", M + "moe_block.gate.weight": "router"}
GGUF = {"token_embd.weight": "embedding", "output_norm.weight": "norm", "blk.0.ffn_gate_inp.weight": "router"}
for i in ("", "_1", "_2", "_3"):
    PORT[T + f"rms_norm{i}.weight"] = "norm"
for i in ("pre_attn", "post_attn", "pre_moe", "post_moe"):
    OTHER[M + i + "_norm.weight"] = "norm"
for i in ("attn_norm", "attn_output_norm", "ffn_norm", "post_ffw_norm"):
    GGUF[f"blk.0.{i}.weight"] = "norm"
for port, other, gguf, shape in (("query", "q", "q", "query"), ("key", "k", "k", "query"), ("value", "v", "v", "query"), ("linear", "o", "output", "output")):
    PORT[T + f"multi_head_attention.{port}.weight"] = shape
    OTHER[M + f"attn.{other}_proj.weight"] = shape
    GGUF[f"blk.0.attn_{gguf}.weight"] = shape
for name, gguf, shape in (("linear", "gate", "up"), ("linear_v", "up", "up"), ("linear_1", "down", "down")):
    GGUF[f"blk.0.ffn_{gguf}_exps.weight"] = shape
    for e in range(E):
        PORT[T + f"moe.{e}.{name}.weight"] = shape
        OTHER[M + f"moe_block.experts.{e}.{name}.weight"] = shape


def write(name, data):
    with open(os.path.join(HERE, name), "wb") as file:
        file.write(data)


def safetensors(names, dtype, size):
    header, offset = {}, 0
    for name, kind in names.items():
        shape = SHAPES[kind]
        count = size
        for dim in shape:
            count *= dim
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + count]}
        offset += count
    text = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text + bytes(offset)


def text(words):
    return struct.pack("<Q", len(words)) + words.encode()


def gguf(kind, code, row_bytes):
    keys = [text("general.architecture") + struct.pack("<I", 8) + text("grok"),
            text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("b"),
            text("tokenizer.ggml.scores") + struct.pack("<IIQ", 9, 6, 2) + bytes(8)]
    for key, value in (("block_count", 1), ("embedding_length", D), ("attention.head_count", H), ("expert_used_count", 1)):
        keys.append(text("grok." + key) + struct.pack("<II", 4, value))
    keys.append(text("grok.attention.layer_norm_rms_epsilon") + struct.pack("<If", 6, 1e-5))
    infos, offset = b"", 0
    for name, shape_name in GGUF.items():
        shape = ([E] if "exps" in name else []) + SHAPES[shape_name]
        plain = shape_name in ("norm", "router")
        rows = 1
        for dim in shape[:-1]:
            rows *= dim
        infos += text(name) + struct.pack("<I", len(shape)) + b"".join(struct.pack("<Q", dim) for dim in reversed(shape))
        infos += struct.pack("<IQ", 0 if plain else code, offset)
        offset += (rows * (4 * D if plain else row_bytes) + 31) // 32 * 32
    data = b"GGUF" + struct.pack("<IQQ", 3, len(GGUF), len(keys)) + b"".join(keys) + infos
    write(f"gguf/{kind}.gguf", data + bytes(-len(data) % 32 + offset))


def gguf_values():
    """A key of each type, lists of each, and one small array: what a header can hold."""
    formats = "BbHhIif?QQQqd"
    keys = [text("general.architecture") + struct.pack("<I", 8) + text("grok"), text("split.count") + struct.pack("<IH", 2, 1),
            text("grok.rope.scaling.type") + struct.pack("<I", 8) + text("none")]
    for kind, form in enumerate(formats):
        if kind in (8, 9):
            continue
        keys.append(text(f"value.{kind}") + struct.pack("<I" + form, kind, 1))
        keys.append(text(f"list.{kind}") + struct.pack("<IIQ" + 2 * form, 9, kind, 2, 0, 1))
    info = text("output_norm.weight") + struct.pack("<IQIQ", 1, 4, 0, 0)
    data = b"GGUF" + struct.pack("<IQQ", 2, 1, len(keys)) + b"".join(keys) + info
    write("gguf/values.gguf", data + bytes(-len(data) % 32 + 16))


def pickled_pair(module, big):
    """int8 [2, 3] and bfloat16 scales [1, 3], with all bytes behind BINBYTES or BINBYTES8, and nothing kept that is not needed."""
    def word(name):
        return b"\x8c" + bytes([len(name)]) + name.encode()

    def put_bytes(count):
        return (b"\x8e" + struct.pack("<Q", count) if big else b"B" + struct.pack("<I", count)) + bytes(range(count))

    def array(kind, rows, size):
        dtype = word("numpy") + word("dtype") + b"\x93" + kind + b"\x89\x88\x87R(K\x03" + word("<") + b"NNN" + \
            b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        start = word("numpy.core.multiarray") + word("_reconstruct") + b"\x93" + word("numpy") + word("ndarray") + b"\x93K\x00\x85C\x01b\x87R"
        return start + b"(K\x01K" + bytes([rows]) + b"K\x03\x86" + dtype + b"\x89" + put_bytes(3 * rows * size) + b"tb"

    scales = word(module) + word("bfloat16") + b"\x93"
    return b"\x80\x04" + word("__main__") + word("QuantizedWeight8bit") + b"\x93)\x81}(" + word("weight") + array(word("i1"), 2, 1) + \
        word("scales") + array(scales, 1, 2) + b"ub."


write("pickle/binbytes.pickle", pickled_pair("jax.numpy", False))
write("pickle/binbytes8.pickle", pickled_pair("ml_dtypes", True))
write("pickle/command.pickle", b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.")
write("pickle/global.pickle", b"\x80\x04cposix\nsystem\n(S'true'\ntR.")
write("safetensors/one.safetensors", safetensors({"model.norm.weight": "norm"}, "F32", 4))
write("safetensors/metadata.safetensors", struct.pack("<Q", 96) + json.dumps({"__metadata__": {"format": "pt"}, "transformer.rms_norm.weight":
      {"dtype": "F32"}}).encode().ljust(96))
gguf_values()
write("safetensors/port.safetensors", safetensors(PORT, "BF16", 2))
write("safetensors/other.safetensors", safetensors(OTHER, "F16", 2))
write("safetensors/empty.safetensors", struct.pack("<Q", 2) + b"{}")
gguf("f16", 1, 2 * D)
gguf("q8_0", 8, 34)
write("json/config.json", json.dumps(CONFIG).encode())
write("json/index.json", json.dumps({"metadata": {}, "weight_map": {"a": "x.safetensors", "b": "../y", "c": 3}}).encode())
write("json/good.json", json.dumps({"weight_map": {"a": "x.safetensors", "b": "y.safetensors"}}).encode())
write("json/deep.json", b"[" * 2000)
