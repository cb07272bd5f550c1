"""faults.py: are the files that killed and failed writers left behind what they say they are?

    faults.py traces FULL.h5 OLD.h5|- FOLDER...     each FOLDER/t.h5, after FOLDER/code and what was printed
    faults.py weights FULL.h5 OLD.h5|- FOLDER...    each FOLDER/w.h5

FULL.h5 is what an undisturbed run writes; OLD.h5 was there before ("-": nothing was). Prints what is wrong, then one line.
"""
import os
import sys

import h5py
import numpy as np

OF_MACHINE = {"phase_seconds", "outer_seconds", "memory_bytes", "dispatch_rows", "rank", "source_rank", "step_rows",
              "events", "clock_error", "clock_drift", "exchange_rows", "outer_exchange_rows", "exchange_bytes",
              "outer_exchange_bytes"}
COUNTERS = ("layers_done", "step_tokens", "tokens_done")
wrong = []
seen = {}


def numbers(path):
    """Every dataset with the names of its axes, every attribute of the root."""
    found = {}
    with h5py.File(path, "r") as file:
        def keep(name, item):
            if isinstance(item, h5py.Dataset):
                axes = [dim.label or (dim[0].name.strip("/") if len(dim) else "") for dim in item.dims]
                found[name] = (item[...], axes)
        file.visititems(keep)
        return found, dict(file.attrs)


def same(a, b):
    """The same bits."""
    return a.dtype == b.dtype and a.shape == b.shape and (a == b).all() if a.dtype == object else a.tobytes() == b.tobytes()


def is_old(found, old):
    return old is not None and all(name in found and same(found[name][0], value) for name, (value, _) in old.items())


def check_trace(folder, full, old):
    path = f"{folder}/t.h5"
    said = open(f"{folder}/out", errors="replace").read() + open(f"{folder}/err", errors="replace").read()
    code = int(open(f"{folder}/code").read())
    if not os.path.exists(path):
        assert old is None, "the older trace is gone"
        assert "layers: " not in said and "trace: " not in said, "there is no trace, but it was said to be written"
        return "none"
    found, root = numbers(path)
    if is_old(found, old):
        assert root["complete"] == 1, "the older trace is not complete any more"
        assert "trace: " not in said, "the older trace is there, but a new one was said to be written"
        return "older"
    assert sorted(found) == sorted(full), "other datasets than in a full trace"
    layers, step, tokens = (int(found[name][0]) for name in COUNTERS)
    num_layers, num_tokens = len(found["layer"][0]), len(found["token"][0])
    counted = f"{layers} layers of {step} tokens after {tokens}"
    assert 0 <= layers <= num_layers and 0 <= step and 0 <= tokens <= tokens + step <= num_tokens, counted
    assert root["complete"] in (0, 1), f"complete is {root['complete']}"
    if code == 0 or "trace: " in said:
        assert root["complete"] == 1, "reported as written, but not complete"
    if root["complete"] == 1:
        assert (layers, step, tokens) == (num_layers, 0, num_tokens), f"complete with {counted}"
    for name, (value, axes) in found.items():
        if name in OF_MACHINE or name in COUNTERS or name == "run_id":
            continue
        expected = full[name][0]
        assert value.shape == expected.shape and value.dtype == expected.dtype, f"{name} is {value.dtype} {value.shape}"
        assert whole(name, value, expected, axes, layers, step, tokens), f"{name} is not whole, with {counted} done"
    return f"{layers} layers" + (", tokens" if tokens == num_tokens else f" after {tokens}" if tokens else "") + \
        (", complete" if root["complete"] else "")


def whole(name, value, expected, axes, layers, step, tokens):
    """Is what the counters say of a quantity as in a full run? tokens are whole, and of the step's tokens after them layers."""
    past = tokens + step
    if name == "layer" or not axes:
        return same(value, expected)
    if axes[:2] == ["layer", "token"]:
        return same(value[:, :tokens], expected[:, :tokens]) and same(value[:layers, :past], expected[:layers, :past])
    if axes[0] == "layer":  # grows from step to step, and may be that of a later step already
        if past == len(full["token"][0]):
            return same(value[:layers], expected[:layers])
        return (value[:layers] <= expected[:layers]).all() and (value[:layers].sum(-1) >= past).all()
    if name in ("final_hidden", "logits"):
        return same(value[:tokens], expected[:tokens])
    return same(value[:past], expected[:past]) if axes[0] == "token" else same(value, expected)


def check_weights(folder, full, old):
    path = f"{folder}/w.h5"
    if not os.path.exists(path):
        assert old is None, "the older file is gone"
        return "none"
    found, root = numbers(path)
    if is_old(found, old):
        return "older"
    assert sorted(found) == sorted(full), "other datasets than in a whole file"
    for name, (value, _) in found.items():
        assert same(value, full[name][0]), f"{name} is not whole"
    return "whole"


kind, full_path, old_path, *folders = sys.argv[1:]
full, _ = numbers(full_path)
old = None if old_path == "-" else numbers(old_path)[0]
for folder in folders:
    try:
        state = (check_trace if kind == "traces" else check_weights)(folder, full, old)
        seen[state] = seen.get(state, 0) + 1
    except (AssertionError, OSError, KeyError, RuntimeError) as problem:
        wrong.append(f"{folder}: {type(problem).__name__}: {problem}")
print("\n".join(wrong) if wrong else "; ".join(f"{state}: {count}" for state, count in sorted(seen.items())))
sys.exit(1 if wrong else 0)
