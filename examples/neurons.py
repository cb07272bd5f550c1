#!/usr/bin/env python3
"""The most active neurons of one token, with h5py and NumPy: what its best expert of each layer put out most.

    examples/neurons.py TRACE.h5 TOKEN
"""
import sys

import h5py
import numpy as np

path, token = sys.argv[1], int(sys.argv[2])
with h5py.File(path, "r") as trace:
    place = int(np.flatnonzero(trace["token"][...] == token)[0])  # a trace may hold some of the tokens only
    print("layer  expert  weight  neuron  output")
    for at, layer in enumerate(trace["layer"][...]):
        expert = trace["expert_indices"][at, place, 0]  # the first choice
        weight = trace["expert_weights"][at, place, 0]
        hidden = trace["ffn_hidden"][at, place, 0]  # [neuron]: only this piece of the file is read
        for neuron in np.argsort(-np.abs(hidden), kind="stable")[:3]:
            print(f"{layer:5}  {expert:6}  {weight:6.3f}  {neuron:6}  {hidden[neuron]:+.6f}")
