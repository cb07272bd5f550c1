"""readers.py WEIGHTS.h5 TRACE.h5: what others read in a trace, and the numbers in it computed again from the weights.

    readers.py --part WHOLE.h5 PART.h5 QUANTITIES LAYERS TOKENS     a trace of a part of a run; lists between commas, "-": all

Prints what is wrong; nothing when all is well.
"""
import json
import sys

import h5py
import numpy as np
import xarray

AXES = {
    "token_ids": "token", "sequence": "token", "position": "token",
    "resid_pre": "layer token emb", "resid_mid": "layer token emb", "resid_post": "layer token emb",
    "attn_q": "layer token q_head head_dim", "attn_k": "layer token kv_head head_dim",
    "attn_v": "layer token kv_head head_dim", "attn_z": "layer token q_head head_dim", "attn_out": "layer token emb",
    "ffn_in": "layer token emb", "router_logits": "layer token expert", "router_probs": "layer token expert",
    "expert_indices": "layer token choice", "expert_weights": "layer token choice",
    "ffn_hidden": "layer token choice neuron", "ffn_out": "layer token emb",
    "final_hidden": "token emb", "logits": "token vocab",
    "dispatch_rows": "layer source_rank rank", "expert_load": "layer expert", "phase_seconds": "layer rank phase",
    "memory_bytes": "rank memory",
    "exchange_rows": "layer rank phase reach", "outer_exchange_rows": "rank phase reach",
    "exchange_bytes": "layer rank phase reach", "outer_exchange_bytes": "rank phase reach",
}
TL_NAMES = {
    "token_ids": "tokens", "resid_pre": "blocks.{layer}.hook_resid_pre", "resid_mid": "blocks.{layer}.hook_resid_mid",
    "resid_post": "blocks.{layer}.hook_resid_post", "attn_q": "blocks.{layer}.attn.hook_rot_q",
    "attn_k": "blocks.{layer}.attn.hook_rot_k", "attn_v": "blocks.{layer}.attn.hook_v",
    "attn_z": "blocks.{layer}.attn.hook_z", "attn_out": "blocks.{layer}.hook_attn_out",
    "ffn_in": "blocks.{layer}.ln2.hook_normalized", "router_probs": "blocks.{layer}.mlp.hook_expert_weights",
    "expert_indices": "blocks.{layer}.mlp.hook_expert_indices", "ffn_hidden": "blocks.{layer}.mlp.hook_post",
    "ffn_out": "blocks.{layer}.hook_mlp_out", "final_hidden": "ln_final.hook_normalized",
}
ROOT = {
    "format": str, "format_version": int, "creator": str, "creator_version": str, "git_revision": str, "command_line": str,
    "date_created": str, "hostname": str, "num_ranks": int, "mpi_library": str, "seed": int, "config_json": str,
    "complete": int,
}
EXCHANGED = {"exchange_rows", "outer_exchange_rows", "exchange_bytes", "outer_exchange_bytes"}
INTEGERS = {"token_ids", "sequence", "position", "expert_indices", "dispatch_rows", "expert_load", "memory_bytes"} | EXCHANGED
ALWAYS = {"token_ids", "sequence", "position", "dispatch_rows", "expert_load", "phase_seconds", "memory_bytes"} | EXCHANGED
wrong = []


def check(good, *words):
    if not good:
        wrong.append(" ".join(str(word) for word in words))


# ---- readers ----

def check_names(path, wanted):
    """h5py and xarray agree with the list of what a trace holds."""
    with xarray.open_dataset(path, engine="h5netcdf") as data, h5py.File(path, "r") as file:
        for name in wanted:
            check(name in data, name, "is missing for xarray")
            if name not in data:
                continue
            axes = tuple(AXES[name].split())
            check(data[name].dims == axes, f"{name}: xarray calls its axes {data[name].dims}, not {axes}")
            for axis in axes:
                check(axis in data[name].coords, f"{name}: axis {axis} has no coordinates")
            check(tuple(dim[0].name.strip("/") for dim in file[name].dims) == axes, f"{name}: other scales for h5py")
            kind = "i" if name in INTEGERS else "f"
            check(file[name].dtype.kind == kind, f"{name}: of type {file[name].dtype}")
            check(data[name].equals(data[name].load()), f"{name}: cannot be read")
            tl_name = file[name].attrs.get("tl_name")
            check(tl_name == TL_NAMES.get(name), f"{name}: tl_name is {tl_name}, not {TL_NAMES.get(name)}")
        for name in set(AXES) - set(wanted):
            check(name not in data, name, "was not asked for, but is there")
        for name in data.variables:
            for axis in data[name].dims:
                check(not axis.startswith("phony"), f"{name}: axis {axis} has no name")
        check(file["expert_load"].attrs["units"] == "rows", "expert_load: not in rows")
        check(file["phase_seconds"].attrs["units"] == "s", "phase_seconds: not in seconds")
        phases = {word.decode() for word in file["phase"][...]}
        check({"attention", "router", "dispatch", "experts", "combine", "wait", "trace"} <= phases, "phases:", phases)

        def look(name, item):
            if isinstance(item, h5py.Dataset):
                item[...]
                check(item.attrs.get("units") or item.attrs.get("long_name"), f"{name}: neither units nor long_name")
                check("\n" not in str(item.attrs.get("long_name")), f"{name}: long_name has more than one line")
                check(item.chunks is None and item.id.get_offset() is not None, f"{name}: not in one piece")
        file.visititems(look)


def check_root(path, ranks, config_of):
    with h5py.File(path, "r") as file, h5py.File(config_of, "r") as weights:
        for name, kind in ROOT.items():
            value = file.attrs.get(name)
            check(isinstance(value, str if kind is str else np.integer), f"attribute {name} is {value!r}")
        check(file.attrs["format"] == "expertmesh-trace" and file.attrs["format_version"] == 1, "another format")
        check(file.attrs["complete"] == 1 and file.attrs["num_ranks"] == ranks, "complete, num_ranks")
        check("--trace" in file.attrs["command_line"], "the command line is not whole:", file.attrs["command_line"])
        config, expected = json.loads(file.attrs["config_json"]), dict(weights["config"].attrs)
        check(config == expected, f"config_json is {config}, the weights' is {expected}")
        check(file["layers_done"][()] == len(file["layer"]), "layers_done is", file["layers_done"][()])
        check(file["tokens_done"].shape == () and file["tokens_done"].dtype == np.int64, "tokens_done: a scalar, 64-bit")
        check(file["tokens_done"][()] == len(file["token"]), "tokens_done is", file["tokens_done"][()])


def check_events(path):
    """What each rank did when: one thing after another, and its seconds in each phase are those of the table of phases."""
    with h5py.File(path, "r") as file:
        begin, end, phase, layer = np.moveaxis(file["events"][..., :4], -1, 0)
        check([word.decode() for word in file["field"]][:4] == ["begin", "end", "phase", "layer"], "fields of events")
        there, ranks = end > 0, begin.shape[0]
        early = -file["clock_error"][:][:, None, None]  # a rank's clock is known no better
        check(there.any(axis=(1, 2)).all(), "events: a rank has none")
        check((begin >= early)[there].all(), "events before the run: at", begin[there].min(initial=0), "s, errors", early)
        for rank, step in np.ndindex(begin.shape[:2]):
            count = there[rank, step].sum()
            check(there[rank, step, :count].all(), "events: not the first places")
            check((begin[rank, step, :count] <= end[rank, step, :count]).all(), "events: one ends before it begins")
            check((begin[rank, step, 1:count] >= end[rank, step, :count - 1] - 1e-9).all(), "events: two at once")
        for rank, place in np.ndindex(ranks, len(file["phase"])):
            for number in [*range(len(file["layer"])), -1]:
                of = there[rank] & (layer[rank] == number) & (phase[rank] == place)
                seconds = (end - begin)[rank][of].sum()
                table = file["outer_seconds"][rank, place] if number < 0 else file["phase_seconds"][number, rank, place]
                check(abs(seconds - table) < 1e-9, f"events of rank {rank}, layer {number}, phase {place}: {seconds} s, not {table} s")
        check(file["step_rows"][...].sum() == len(file["token"]), "step_rows: another number of tokens")
        check((file["clock_error"][...] >= 0).all() and file["clock_error"][0] == 0, "clock_error")


# ---- the numbers again ----

class Weights:
    """Stored weights as float64 numbers."""

    def __init__(self, path):
        self.file = h5py.File(path, "r")
        self.config = dict(self.file["config"].attrs)

    def __call__(self, name, *index):
        data = self.file[name]
        rows = data[index] if index else data[...]
        if data.dtype == np.int8:
            scale = self.file[name + "_scale"][index] if index else self.file[name + "_scale"][...]
            rows = rows.astype("f8") * np.repeat(scale.astype("f8"), rows.shape[-1] // scale.shape[-1], axis=-1)
        return rows.astype("f8")


def near(what, found, expected, tolerance=2e-5):
    """Within a relative 2-norm; expected may be 0 by chance for one number, so a group of numbers is judged together."""
    found, expected = np.asarray(found, "f8"), np.asarray(expected, "f8")
    gap = np.linalg.norm(found - expected) / max(np.linalg.norm(expected), 1e-30)
    check(gap <= tolerance, f"{what}: relative difference {gap:.2e} (found {found.ravel()[:3]}, expected {expected.ravel()[:3]})")


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def rms_norm(x, scale, eps):
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps) * scale


def rope(x, position, base):
    """x [tokens, heads, C]: the first half of a head's elements with the second."""
    half = x.shape[-1] // 2
    angle = position[:, None] * base ** (-np.arange(half) / half)
    cos, sin = np.cos(angle)[:, None, :], np.sin(angle)[:, None, :]
    first, second = x[..., :half], x[..., half:]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def check_numbers(weights, path, rng):
    c = weights.config
    heads, kv_heads, width = c["num_q_heads"], c["num_kv_heads"], c["key_size"]
    with h5py.File(path, "r") as t:
        layers, tokens = t["layer"][...], t["token"][...]
        sequence, position = t["sequence"][...], t["position"][...].astype("f8")
        for at, layer in enumerate(layers):
            prefix = f"/layers/{layer:03d}/"
            # neurons of the first layer of chosen experts, each from its own row of weights
            found, expected = [], []
            for _ in range(40):
                i, choice = rng.integers(len(tokens)), rng.integers(c["num_selected_experts"])
                neuron, x = rng.integers(c["ffn_size"]), t["ffn_in"][at, i].astype("f8")
                expert = int(t["expert_indices"][at, i, choice])
                up = weights(prefix + "ffn_up", expert, neuron) @ x
                if c["ffn_kind"] == "glu":
                    value = gelu(weights(prefix + "ffn_gate", expert, neuron) @ x) * up
                else:
                    value = gelu(up + weights(prefix + "ffn_up_bias", expert, neuron))
                expected.append(value)
                found.append(t["ffn_hidden"][at, i, choice, neuron])
            near(f"layer {layer}: ffn_hidden", found, expected)
            # the router
            logits = t["ffn_in"][at].astype("f8") @ weights(prefix + "router").T
            near(f"layer {layer}: router_logits", t["router_logits"][at], logits)
            probs = np.exp(logits - logits.max(axis=-1, keepdims=True))
            probs /= probs.sum(axis=-1, keepdims=True)
            near(f"layer {layer}: router_probs", t["router_probs"][at], probs)
            best = np.argsort(-t["router_probs"][at], axis=-1, kind="stable")[:, : c["num_selected_experts"]]
            check((t["expert_indices"][at] == best).all(), f"layer {layer}: expert_indices are not the best, in order")
            check((t["expert_weights"][at] == np.take_along_axis(t["router_probs"][at], best, -1)).all(),
                  f"layer {layer}: expert_weights are not the chosen probabilities")
            load = np.bincount(t["expert_indices"][at].ravel(), minlength=c["num_experts"])
            check((t["expert_load"][at] == load).all(), f"layer {layer}: expert_load is not what expert_indices add up to")
            check(t["dispatch_rows"][at].sum() >= len(tokens), f"layer {layer}: fewer rows dispatched than tokens")
            # queries, keys and values, and one result of one head
            x = rms_norm(t["resid_pre"][at].astype("f8"), weights(prefix + "attn_norm_pre"), c["rms_norm_eps"])
            q = rope((x @ weights(prefix + "attn_query").T).reshape(-1, heads, width), position, c["rope_base"])
            k = rope((x @ weights(prefix + "attn_key").T).reshape(-1, kv_heads, width), position, c["rope_base"])
            v = (x @ weights(prefix + "attn_value").T).reshape(-1, kv_heads, width)
            near(f"layer {layer}: attn_q", t["attn_q"][at], q)
            near(f"layer {layer}: attn_k", t["attn_k"][at], k)
            near(f"layer {layer}: attn_v", t["attn_v"][at], v)
            for _ in range(4):
                i, head = rng.integers(len(tokens)), rng.integers(heads)
                shared = head // (heads // kv_heads)
                seen = [j for j in range(i + 1) if sequence[j] == sequence[i]]
                score = t["attn_k"][at, seen, shared].astype("f8") @ t["attn_q"][at, i, head].astype("f8")
                cap = c["attn_logit_softcap"]
                score = cap * np.tanh(score * c["attn_output_multiplier"] / cap)
                weight = np.exp(score - score.max())
                z = weight / weight.sum() @ t["attn_v"][at, seen, shared].astype("f8")
                near(f"layer {layer}: attn_z of token {i}, head {head}", t["attn_z"][at, i, head], z)
            out = t["attn_z"][at].astype("f8").reshape(len(tokens), -1) @ weights(prefix + "attn_output").T
            out = rms_norm(out, weights(prefix + "attn_norm_post"), c["rms_norm_eps"])
            near(f"layer {layer}: attn_out", t["attn_out"][at], out)
            near(f"layer {layer}: resid_mid", t["resid_mid"][at], t["resid_pre"][at].astype("f8") + t["attn_out"][at])
            near(f"layer {layer}: resid_post", t["resid_post"][at], t["resid_mid"][at].astype("f8") + t["ffn_out"][at])
            near(f"layer {layer}: ffn_in", t["ffn_in"][at],
                 rms_norm(t["resid_mid"][at].astype("f8"), weights(prefix + "ffn_norm_pre"), c["rms_norm_eps"]))
        embedded = weights("/embedding")[t["token_ids"][...]] * c["embedding_multiplier_scale"]
        near("resid_pre of layer 0", t["resid_pre"][0], embedded)
        near("logits", t["logits"],
             t["final_hidden"][...].astype("f8") @ weights("/embedding").T * c["output_multiplier_scale"])


def check_memory(weights_path, trace_path):
    """The ranks hold the stored weights, all of them and each at most once a rank; their processes hold more."""
    with h5py.File(weights_path, "r") as weights, h5py.File(trace_path, "r") as trace:
        sizes = []
        weights.visititems(lambda name, item: sizes.append(item.id.get_storage_size() if hasattr(item, "shape") else 0))
        check([word.decode() for word in trace["memory"][...]] == ["weights", "peak"], "memory:", trace["memory"][...])
        held, peak = trace["memory_bytes"][...].T
        check(sum(sizes) <= held.sum() <= len(held) * sum(sizes), f"weights of {sum(sizes)} bytes are held as {held}")
        check((peak > held).all(), f"ranks hold weights of {held} bytes, but at most {peak}")


# ---- a part of a trace ----

def check_part(whole_path, part_path, quantities, layers, tokens):
    with h5py.File(whole_path, "r") as whole, h5py.File(part_path, "r") as part:
        names = set(AXES) if quantities == "-" else set(quantities.split(",")) | ALWAYS
        keep = {"layer": whole["layer"][...] if layers == "-" else np.array([int(n) for n in layers.split(",")]),
                "token": whole["token"][...] if tokens == "-" else np.array([int(n) for n in tokens.split(",")])}
        for axis, numbers in keep.items():
            check(np.array_equal(part[axis][...], numbers), f"axis {axis} is {part[axis][...]}, not {numbers}")
        for name in names:
            if name in {"phase_seconds", "dispatch_rows", "memory_bytes"} | EXCHANGED:
                continue
            expected = whole[name][...]
            for place, axis in enumerate(AXES[name].split()):
                if axis in keep:
                    expected = np.take(expected, np.searchsorted(whole[axis][...], keep[axis]), axis=place)
            check(name in part and part[name].shape == expected.shape and part[name][...].tobytes() == expected.tobytes(),
                  f"{name}: not what the whole trace holds there")
    check_names(part_path, names)


if sys.argv[1] == "--part":
    check_part(*sys.argv[2:])
else:
    weights_path, trace_path = sys.argv[1:]
    check_names(trace_path, set(AXES))
    check_root(trace_path, 3, weights_path)
    check_memory(weights_path, trace_path)
    check_events(trace_path)
    check_numbers(Weights(weights_path), trace_path, np.random.default_rng(5))
print("\n".join(wrong), end="\n" if wrong else "")
sys.exit(1 if wrong else 0)
