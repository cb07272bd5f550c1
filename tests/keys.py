"""tests/keys.py make|check: checkpoints whose keys are absent or have their other names, made of those that import.sh has in its
working folder; and the config that imports of them must have."""
import json
import os
import shutil
import struct
import sys

SIZES = (1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8)  # of GGUF's values by type
GROK = {"rms_norm_eps": 1e-5, "rope_base": 10000.0, "attn_output_multiplier": 0.08838834764831845, "attn_logit_softcap": 30.0,
        "embedding_multiplier_scale": 78.38367176906169, "output_multiplier_scale": 0.5773502691896257, "sequence_len": 8192}
SHAPES = {"emb_size": 46, "num_layers": 12, "num_q_heads": 6, "num_kv_heads": 3, "key_size": 10, "num_experts": 3,
          "num_selected_experts": 2, "ffn_size": 35, "vocab_size": 53}


def text(data, at):
    length = struct.unpack_from("<Q", data, at)[0]
    return data[at + 8:at + 8 + length].decode(), at + 8 + length


def past_value(data, at, kind):
    if kind == 8:
        return text(data, at)[1]
    if kind != 9:
        return at + SIZES[kind]
    of, count = struct.unpack_from("<IQ", data, at)
    at += 12
    for _ in range(count):
        at = past_value(data, at, of)
    return at


def gguf(source, path, absent, names):
    """A copy without some keys, and with other names of arrays (as long as the old ones)."""
    with open(source, "rb") as file:
        data = file.read()
    arrays, count = struct.unpack_from("<QQ", data, 8)
    at, kept = 24, []
    for _ in range(count):
        begin = at
        key, at = text(data, at)
        at = past_value(data, at + 4, struct.unpack_from("<I", data, at)[0])
        if key not in absent:
            kept.append(data[begin:at])
    assert len(kept) == count - len(absent)
    begin, entries = at, b""
    for _ in range(arrays):
        name, rest = text(data, at)
        rank = struct.unpack_from("<I", data, rest)[0]
        past = rest + 4 + 8 * rank + 12
        for old, new in names.items():
            name = name.replace(old, new)
        entries += struct.pack("<Q", len(name)) + name.encode() + data[rest:past]
        at = past
    numbers = data[(at + 63) // 64 * 64:]
    head = data[:16] + struct.pack("<Q", len(kept)) + b"".join(kept) + entries
    with open(path, "wb") as file:
        file.write(head + bytes(-len(head) % 64) + numbers)


def folder(source, path, change):
    shutil.copytree(source, path)
    with open(f"{path}/config.json") as file:
        config = json.load(file)
    change(config)
    with open(f"{path}/config.json", "w") as file:
        json.dump(config, file)


def other_names(config):
    config["num_local_experts"] = config.pop("num_experts")
    config["num_selected_experts"] = config.pop("num_experts_per_tok")


def few(config):
    for key in ("rms_norm_eps rope_theta attn_output_multiplier max_attn_value embedding_multiplier_scale "
                "output_multiplier_scale max_position_embeddings num_hidden_layers num_key_value_heads intermediate_size vocab_size "
                "num_experts num_experts_per_tok hidden_size").split():
        config.pop(key)


def make():
    reals = ("attention.output_scale attn_logit_softcapping embedding_scale logit_scale rope.freq_base "
             "attention.layer_norm_rms_epsilon context_length").split()
    told = "block_count embedding_length feed_forward_length attention.head_count_kv attention.key_length expert_count vocab_size".split()
    gguf("gguf.gguf", "few.gguf", ["grok." + key for key in reals + told + ["expert_used_count"]],
         {"layer_output_norm": "post_ffw_norm"})
    folder("transformer", "names", other_names)
    folder("transformer", "few", few)
    folder("square", "heads", lambda config: config.pop("head_dim"))


def check():
    import h5py
    wanted = {"names-1.h5": SHAPES, "few-1.h5": SHAPES | GROK, "few-gguf-1.h5": SHAPES | GROK}
    for path, want in wanted.items():
        with h5py.File(path) as file:
            have = {key: file["config"].attrs[key] for key in want}
            assert have == want, (path, have)
    with h5py.File("square.h5") as a, h5py.File("heads-1.h5") as b:
        assert dict(a["config"].attrs) == dict(b["config"].attrs), dict(b["config"].attrs)
    for path, whole in (("names-1.h5", "transformer.h5"), ("few-1.h5", "transformer.h5"), ("few-gguf-1.h5", "gguf.h5")):
        with h5py.File(path) as a, h5py.File(whole) as b:
            a["layers"].visititems(lambda name, data: None if isinstance(data, h5py.Group) else same(data, b["layers"][name]))


def same(data, other):
    assert data[...].tobytes() == other[...].tobytes(), data.name


make() if sys.argv[1] == "make" else check()
