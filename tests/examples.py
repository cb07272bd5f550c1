"""examples.py SCRIPT OUTPUT TRACE.h5: what an example printed (or drew), against the trace.

Prints what is wrong; nothing when all is well.
"""
import re
import sys

import h5py
import numpy as np

wrong = []


def check(good, *words):
    if not good:
        wrong.append(" ".join(str(word) for word in words))


def near(found, expected, digits):
    return abs(found - expected) <= 0.51 * 10.0 ** -digits


def rows_of(text):
    """The cells of every line that begins with a number."""
    return [line.split() for line in text.splitlines() if re.match(r" *[0-9]", line)]


def check_neurons(text, trace, token):
    rows = rows_of(text)
    check(len(rows) == 3 * len(trace["layer"]), len(rows), "rows")
    for at, (layer, expert, weight, neuron, output) in enumerate(rows):
        place, rank = at // 3, at % 3
        hidden = trace["ffn_hidden"][place, token, 0]
        ordered = sorted(range(len(hidden)), key=lambda n: -abs(hidden[n]))
        check(int(layer) == trace["layer"][place] and int(expert) == trace["expert_indices"][place, token, 0]
              and near(float(weight), trace["expert_weights"][place, token, 0], 3)
              and int(neuron) == ordered[rank] and near(float(output), hidden[ordered[rank]], 6), "row", at, rows[at])


def check_router(text, trace):
    rows = rows_of(text)
    check(len(rows) == len(trace["layer"]), len(rows), "rows")
    for place, (layer, mean, token, most) in enumerate(rows):
        probs = trace["router_probs"][place].astype("f8")
        entropy = [-sum(p * np.log(p) for p in row if p > 0) / np.log(len(row)) for row in probs]
        check(int(layer) == trace["layer"][place] and near(float(mean), np.mean(entropy), 4)
              and int(token) == trace["token"][int(np.argmax(entropy))] and near(float(most), max(entropy), 4),
              "layer", layer, rows[place])


def check_cache(text, trace):
    names = dict(re.findall(r"^(\S+) +\((.*)\)$", text, re.M))
    expected = {}
    for data in trace.values():
        name = data.attrs.get("tl_name", "")
        for layer in trace["layer"][...] if "{layer}" in name else [None] if name else []:
            expected[name.format(layer=layer)] = data.shape[1:] if layer is not None else data.shape
    check(len(expected) > 20 and set(names) == set(expected), set(names) ^ set(expected))
    for name, shape in expected.items():
        check(names.get(name, "").strip(",") == ", ".join(map(str, shape)), name, names.get(name), shape)
    gaps = re.findall(r"resid_mid to within (\S+)", text)
    check(len(gaps) == len(trace["layer"]) and all(float(gap) < 1e-5 for gap in gaps), "gaps", gaps)


def check_load(picture, trace):
    """As many cells as numbers; their green rises with the load, as the ramp's does."""
    load = trace["expert_load"][...]
    cells = re.findall(r"<polygon +fill *= *'rgb\( *(\d+), *(\d+), *(\d+)\)' points = '([^']*)'", picture)
    cells = cells[:load.size]  # the others are the ramp beside it
    corners = [tuple(map(float, cell[3].split()[0].split(","))) for cell in cells]
    columns, lines = sorted({x for x, _ in corners}), sorted({y for _, y in corners})
    check((len(lines), len(columns)) == load.shape, "cells", len(lines), len(columns), "not", load.shape)
    greens = sorted((load[lines.index(y), columns.index(x)], int(cell[1])) for cell, (x, y) in zip(cells, corners))
    check(len(cells) == load.size and all(b[1] > a[1] if b[0] > a[0] else b == a for a, b in zip(greens, greens[1:])),
          "loads and greens:", greens)


def check_phases(text, trace):
    names = [name.decode() for name in trace["phase"][...]]
    seconds = trace["phase_seconds"][...].sum(0) + trace["outer_seconds"][...]
    rows = [line.split() for line in text.splitlines() if line.split() and line.split()[0] in names]
    check(sorted(row[0] for row in rows) == sorted(names), "phases", [row[0] for row in rows])
    for name, *cells in rows:
        found = np.array(cells, "f8")
        mine = seconds[:, names.index(name)]
        check(np.allclose(found, [*mine, mine.sum() / seconds.sum()], 1e-4, 1e-9), name, found, mine)
    shares = [float(row[-1]) for row in rows]
    check(shares == sorted(shares, reverse=True), "shares do not fall:", shares)


script, output, path = sys.argv[1:]
with open(output, encoding="utf-8") as file, h5py.File(path, "r") as trace:
    text = file.read()
    if script == "neurons.py":
        check_neurons(text, trace, 5)
    else:
        {"router.py": check_router, "cache.py": check_cache, "load.sh": check_load,
         "phases.R": check_phases}[script](text, trace)
print("\n".join(wrong[:20]), end="\n" if wrong else "")
sys.exit(1 if wrong else 0)
