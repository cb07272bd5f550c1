"""slurm.py FOLDER POINT=RUNS,RANKS,TOKENS...: is FOLDER/table.csv what its traces, of two layers and two experts a token, say?"""
import csv
import glob
import statistics
import sys

import h5py

folder, wanted = sys.argv[1], dict(word.split("=") for word in sys.argv[2:])
table = {row["point"]: row for row in csv.DictReader(open(folder + "/table.csv"))}
assert list(table) == list(wanted), (list(table), list(wanted))
rate = {}
for point, row in table.items():
    runs, ranks, tokens = map(int, wanted[point].split(","))
    traces = [h5py.File(path) for path in sorted(glob.glob(f"{folder}/{point}.*.h5"))]
    assert len(traces) == runs == int(row["runs"]), point
    seconds, rows = [], set()
    for trace in traces:
        assert trace.attrs["num_ranks"] == ranks and trace.attrs["complete"] == 1 and trace["token_ids"].shape == (tokens,)
        assert trace["expert_load"][:].sum() == 2 * 2 * tokens  # layers, experts for each token
        phases = range(len(trace["phase"]))
        seconds.append(max(sum(trace["phase_seconds"][layer, rank, phase] for layer in range(2) for phase in phases)
                           + sum(trace["outer_seconds"][rank, phase] for phase in phases) for rank in range(ranks)))
        moved = trace["exchange_rows"][:].reshape(-1, 2).tolist() + trace["outer_exchange_rows"][:].reshape(-1, 2).tolist()
        rows.add(tuple(sum(pair[reach] for pair in moved) for reach in (0, 1)))
    # As many in every repetition, in one node none between, and a row is 96 numbers of 4 bytes.
    assert len(rows) == 1, (point, rows)
    inside, between = rows.pop()
    assert (int(row["bytes inside"]), int(row["bytes between"])) == (inside * 384, between * 384), (point, inside, between, row)
    assert (between == 0) == point.startswith("1-nodes") and inside > 0, (point, inside, between)
    assert (int(row["ranks"]), int(row["tokens"])) == (ranks, tokens), row
    assert abs(float(row["seconds"]) / statistics.median(seconds) - 1) < 1e-6, (point, row, seconds)
    rate[point] = tokens / statistics.median(seconds)
    first = next(iter(rate))
    assert abs(float(row["speed-up"]) / (rate[point] / rate[first]) - 1) < 1e-6, row
    assert abs(float(row["efficiency"]) / (float(row["speed-up"]) * int(table[first]["ranks"]) / ranks) - 1) < 1e-6, row
    shares = [float(row[name]) for name in ("attention", "experts", "exchange", "wait")]
    assert min(shares) > 0 and sum(shares) < 1, row
