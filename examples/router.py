#!/usr/bin/env python3
"""Where the router was least sure, with xarray: axes have names, so no index needs to be remembered.

    examples/router.py TRACE.h5
"""
import sys

import numpy as np
import xarray

with xarray.open_dataset(sys.argv[1], engine="h5netcdf") as trace:
    probs = trace.router_probs.astype("float64")  # (layer, token, expert)
    entropy = -(probs * np.log(probs.where(probs > 0, 1))).sum("expert") / np.log(trace.sizes["expert"])
    print("layer  entropy  least sure of token  its entropy")
    for layer in trace.layer.values:
        here = entropy.sel(layer=layer)
        token = here.idxmax("token").item()
        print(f"{layer:5}  {here.mean().item():7.4f}  {int(token):19}  {here.sel(token=token).item():11.4f}")
