#!/usr/bin/python3
"""collect.py FOLDER: one table and one plot of the traces of a series of runs, FOLDER/POINT.REPETITION.h5.

A line for each point (a number of nodes, a layout): its median run. All numbers are the traces' own.
  seconds       of the slowest rank, over all phases
  spread        slowest run less fastest, as a part of the median
  speed-up      in tokens/s, against the first point
  efficiency    speed-up by how many times as many ranks; 1 is ideal, for strong and for weak scaling alike
  attention ... shares of all ranks' seconds; exchange is gather, sum, dispatch and combine; wait is for other ranks
  bytes ...     that ranks had from other ranks, inside nodes (read in their memory) and between nodes (sent)

Writes FOLDER/table.csv, FOLDER/plot.gp and, where there is gnuplot, FOLDER/plot.svg. Ends with 1 when a run of the series (each
leaves POINT.REPETITION.tokens when it starts) did not come to its end, 66 when none did.
"""
import csv
import glob
import os
import re
import shutil
import statistics
import subprocess
import sys

import h5py

HEAD = ["point", "ranks", "runs", "tokens", "seconds", "spread", "tokens/s", "speed-up", "efficiency", "attention", "experts",
        "exchange", "wait", "bytes inside", "bytes between"]
SHARES = {"attention": {"attention"}, "experts": {"experts"}, "exchange": {"gather", "sum", "dispatch", "combine"},
          "wait": {"wait"}}


def read_run(path):
    """What the table needs of one trace; None where the run did not end well."""
    try:
        with h5py.File(path, "r") as trace:
            if trace.attrs["complete"] != 1:
                return None
            phases = [name.decode() for name in trace["phase"][:]]
            by_phase = trace["phase_seconds"][:].sum(axis=0) + trace["outer_seconds"][:]  # [ranks, phases]
            moved = trace["exchange_bytes"][:].sum(axis=0) + trace["outer_exchange_bytes"][:]  # [ranks, phases, reach]
            inside, between = moved.sum(axis=(0, 1)).tolist()
            return {
                "ranks": int(trace.attrs["num_ranks"]),
                "tokens": int(trace["tokens_done"][()]),
                "seconds": float(by_phase.sum(axis=1).max()),
                "phases": dict(zip(phases, (by_phase.sum(axis=0) / by_phase.sum()).tolist())),
                "bytes inside": inside,
                "bytes between": between,
            }
    except (OSError, KeyError) as error:
        print(f"collect: {path}: {error}", file=sys.stderr)
        return None


def name_of(path):
    """POINT and REPETITION of a file's name."""
    return os.path.basename(path).rsplit(".", 2)[:2]


def natural(text):
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", text)]


def read_series(folder):
    """Runs of each point in order of ranks and name; paths of those that did not end."""
    points, unfinished = {}, []
    for start in sorted(glob.glob(os.path.join(glob.escape(folder), "*.*.tokens"))):
        trace = start[:-len("tokens")] + "h5"
        run = read_run(trace) if os.path.exists(trace) else None
        if run is None:
            unfinished.append(trace)
        else:
            points.setdefault(name_of(start)[0], []).append(run)
    return dict(sorted(points.items(), key=lambda item: (item[1][0]["ranks"], natural(item[0])))), unfinished


def row_of(point, runs, first):
    """One line of the table. first: the line of the first point."""
    seconds = [run["seconds"] for run in runs]
    middle = sorted(runs, key=lambda run: run["seconds"])[(len(runs) - 1) // 2]
    row = {"point": point, "runs": len(runs), "seconds": statistics.median(seconds)}
    row.update({name: middle[name] for name in ("ranks", "tokens", "bytes inside", "bytes between")})
    row["spread"] = (max(seconds) - min(seconds)) / row["seconds"]
    row["tokens/s"] = row["tokens"] / row["seconds"]
    first = first or row
    row["speed-up"] = row["tokens/s"] / first["tokens/s"]
    row["efficiency"] = row["speed-up"] * first["ranks"] / row["ranks"]
    for name, phases in SHARES.items():
        row[name] = sum(middle["phases"][phase] for phase in phases)
    return row


def text_of(value):
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def print_table(rows):
    cells = [HEAD] + [[text_of(row[name]) for name in HEAD] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(HEAD))]
    for line in cells:
        print("  ".join(text.ljust(width) if i == 0 else text.rjust(width)
                        for i, (text, width) in enumerate(zip(line, widths))).rstrip())


def write_table(path, rows):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEAD)
        writer.writerows([row[name] for name in HEAD] for row in rows)


def plot_script(folder, rows):
    """Tokens a second against ranks beside the ideal; as bars where all points have as many ranks."""
    title = os.path.basename(os.path.abspath(folder))
    lines = ["# gnuplot plot.gp: draws plot.svg", "set terminal svg size 800,500 background rgb 'white'",
             "set output 'plot.svg'", "set datafile separator ','", f"set title \"{title}\" noenhanced",
             "set ylabel 'tokens/s'", "set yrange [0:*]", "set key top left", "set grid ytics"]
    tokens, ranks = HEAD.index("tokens/s") + 1, HEAD.index("ranks") + 1
    if len({row["ranks"] for row in rows}) == 1 and len(rows) > 1:
        lines += ["set style fill solid 0.6", "set boxwidth 0.6",
                  f"plot 'table.csv' skip 1 using 0:{tokens}:xtic(1) with boxes title 'measured'"]
    else:
        ideal = rows[0]["tokens/s"] / rows[0]["ranks"]
        lines += ["set xlabel 'ranks'", "set xrange [0:*]",
                  f"plot 'table.csv' skip 1 using {ranks}:{tokens} with linespoints pointtype 7 title 'measured', "
                  f"'' skip 1 using {ranks}:({ideal!r}*${ranks}) with lines dashtype 2 title 'ideal'"]
    return "\n".join(lines) + "\n"


def plot(folder, rows):
    with open(os.path.join(folder, "plot.gp"), "w") as file:
        file.write(plot_script(folder, rows))
    if shutil.which("gnuplot") is None:
        print(f"collect: there is no gnuplot here, so no plot was drawn: `gnuplot plot.gp` in {folder} draws it",
              file=sys.stderr)
        return
    subprocess.run(["gnuplot", "plot.gp"], cwd=folder, check=True)


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print(__doc__)
        return 0 if sys.argv[1:] in (["-h"], ["--help"]) else 64
    folder = sys.argv[1]
    points, unfinished = read_series(folder)
    for path in unfinished:
        print(f"collect: {path}: this run did not come to its end, and is left out", file=sys.stderr)
    if not points:
        print(f"collect: {folder}: no run of a series came to its end there", file=sys.stderr)
        return 66
    rows = []
    for point, runs in points.items():
        rows.append(row_of(point, runs, rows[0] if rows else None))
    print_table(rows)
    write_table(os.path.join(folder, "table.csv"), rows)
    plot(folder, rows)
    print(f"in {folder}: table.csv, plot.gp" + (", plot.svg" if shutil.which("gnuplot") else ""))
    return 1 if unfinished else 0


if __name__ == "__main__":
    sys.exit(main())
