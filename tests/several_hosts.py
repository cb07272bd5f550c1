"""several_hosts.py flat|node TRACE.h5 RANKS_PER_HOST OUTPUT: rows and bytes of each exchange, against arithmetic on what the
router chose and on who owns what, as the run's output tells.

For a run of one step with --layout contiguous. Prints what is wrong; nothing when all is well.

    several_hosts.py bytes TRACE.h5       bytes that the run counted between hosts
"""
import json
import sys

import h5py
import numpy as np

INSIDE, BETWEEN = 0, 1
how, path = sys.argv[1:3]
trace = h5py.File(path, "r")
phases = [word.decode() for word in trace["phase"][...]]
reaches = [word.decode() for word in trace["reach"][...]]
rows, outer = trace["exchange_rows"][...], trace["outer_exchange_rows"][...]
wrong = []


def check(good, *words):
    if not good:
        wrong.append(" ".join(str(word) for word in words))


if how == "bytes":
    print(trace["exchange_bytes"][..., BETWEEN].sum() + trace["outer_exchange_bytes"][..., BETWEEN].sum())
    sys.exit()

config = json.loads(trace.attrs["config_json"])
P, per_host = int(trace.attrs["num_ranks"]), int(sys.argv[3])
T, E, SLICES = len(trace["token"]), config["num_experts"], 8
host = [r // per_host for r in range(P)]
members = [[r for r in range(P) if host[r] == h] for h in range(max(host) + 1)]


def share(count, r):
    """Of so many things in a row, those of rank r."""
    return range(count * r // P, count * (r + 1) // P)


def expected(needed):
    """needed [T]: for each token the ranks that need its row, each as often as it does. What its owner's rows count as."""
    count = np.zeros((P, 2), int)
    for owner in range(P):
        for row, token in enumerate(share(T, owner)):
            for h, ranks in enumerate(members):
                there = [r for r in needed[token] if host[r] == h]
                if h == host[owner]:
                    count[owner, INSIDE] += sum(r != owner for r in there)
                elif how == "flat":
                    count[owner, BETWEEN] += len(there)
                else:
                    count[owner, BETWEEN] += len(there) > 0
                    count[owner, INSIDE] += sum(r != ranks[row % len(ranks)] for r in there)
    return count


check(reaches == ["inside", "between"], "reaches:", reaches)
slices = [[r for r in range(P) if set(share(E * SLICES, r)) & set(range(e * SLICES, (e + 1) * SLICES))] for e in range(E)]
owned = [line.split() for line in open(sys.argv[4]).read().split("weights held by each rank")[1].splitlines()[3:3 + P]]
check([line[0] for line in owned] == [str(r) for r in range(P)], "no table of ranks:", owned)
everyone = expected([[r for r in range(P) if int(owned[r][3]) > 0]] * T)
for layer, chosen in enumerate(trace["expert_indices"][...]):
    seen = rows[layer, :, phases.index("gather")]
    check(np.array_equal(seen, everyone), f"gather, layer {layer}: {seen.tolist()}, not {everyone.tolist()}")
    dispatched = expected([[r for e in token for r in slices[e]] for token in chosen])
    seen = rows[layer, :, phases.index("dispatch")]
    check(np.array_equal(seen, dispatched), f"dispatch, layer {layer}: {seen.tolist()}, not {dispatched.tolist()}")
everyone = expected([[r for r in range(P) if int(owned[r][7]) > 0]] * T)
seen = outer[:, phases.index("output")]
check(np.array_equal(seen, everyone), f"output: {seen.tolist()}, not {everyone.tolist()}")
for name, counted in (("exchange_bytes", rows), ("outer_exchange_bytes", outer)):
    check(np.array_equal(trace[name][...], counted * config["emb_size"] * 4), f"{name} are not those of the rows")
check(rows[:, :, phases.index("experts")].sum() == 0, "rows in a phase that exchanges nothing")
print("\n".join(wrong), end="\n" if wrong else "")
sys.exit(1 if wrong else 0)
