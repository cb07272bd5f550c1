#!/usr/bin/env python3
"""A trace by the names that TransformerLens uses: cache["blocks.3.hook_resid_post"], cache["resid_post", 3].

    examples/cache.py TRACE.h5       or in Python:  from cache import Cache; cache = Cache("TRACE.h5")
"""
import sys

import h5py
import numpy as np


class Cache:
    """Reads what is asked for when it is asked for. The names are in the file: attribute tl_name of each dataset."""

    def __init__(self, path):
        self.file = h5py.File(path, "r")
        self.layers = list(self.file["layer"][...])
        self.where = {}  # name: (dataset, place of the layer or None)
        for name, data in self.file.items():
            pattern = data.attrs.get("tl_name", "")
            for place, layer in enumerate(self.layers if "{layer}" in pattern else [None] if pattern else []):
                self.where[pattern.format(layer=layer)] = data, place if layer is not None else ()

    def __getitem__(self, key):
        if isinstance(key, tuple):  # (short name, layer), as in TransformerLens
            key = next(name for name in self.where if name.startswith(f"blocks.{key[1]}.") and name.endswith("_" + key[0]))
        data, place = self.where[key]
        return data[place]


if __name__ == "__main__":
    cache = Cache(sys.argv[1])
    for name in cache.where:
        print(f"{name:32} {cache[name].shape}")
    for layer in cache.layers:  # what attention adds, checked
        gap = cache["resid_pre", layer] + cache["attn_out", layer] - cache["resid_mid", layer]
        print(f"layer {layer}: resid_pre + attn_out is resid_mid to within {np.abs(gap).max():.1e}")
