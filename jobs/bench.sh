#!/bin/bash
# jobs/bench.sh: everything that `expertmesh bench` measures on this machine, as Markdown on standard output.
#
#   jobs/bench.sh [-n RANKS] [-t TURNS] [-- OPTION...]
#
#   -n RANKS    ranks of one thread each in the second run (the cores there are)
#   -t TURNS    how often both then run the model by turns, three times each; 0: do not (3)
#   OPTION...   passed on to both runs of `expertmesh bench`; values of --only and --runs after a blank
#
# Runs it alone, on one rank with a thread a core, then as ranks of one thread; then the model by turns, as a machine is not
# equally fast for long; prints which targets are reached, how the two compare by turns, and all figures. With all parts it
# takes some twenty minutes, the turns more, 14 GB of memory and 6 GB of disk, and wants the machine for itself. jobs/bench.md
# says how each figure is made.
# Ends with 0 when everything was measured, whatever the figures; 64 for wrong usage.
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck source=setup.sh
. "$top/jobs/setup.sh"

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; }
wrong() {
    printf 'bench: %s (--help says more)\n' "$*" >&2
    exit 64
}

ranks=
turns=3
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help)
            usage
            exit 0
            ;;
        -n)
            [ $# -ge 2 ] || wrong "$1 needs a value"
            ranks=$2
            shift 2
            ;;
        -t)
            [ $# -ge 2 ] || wrong "$1 needs a value"
            turns=$2
            shift 2
            ;;
        --)
            shift
            break
            ;;
        *) wrong "what is $1? options for expertmesh come after --" ;;
    esac
done
case ${ranks:-1} in *[!0-9]* | 0*) wrong "-n wants a number of ranks, not '$ranks'" ;; esac
case $turns in '' | *[!0-9]* | 0?*) wrong "-t wants a number of turns, not '$turns'" ;; esac
for option; do
    case $option in -o | --output | --output=* | -o?* | --threads | --threads=*) wrong "$option is for this script to give" ;; esac
done

# The options of the turns: those of the runs, but the model alone, three runs; none where the runs leave it out.
by_turns=(--only model --runs 3)
option=
for argument; do
    case $option in
        --only) case ,$argument, in *,model,*) ;; *) turns=0 ;; esac ;;
        --runs) ;;
        *)
            case $argument in
                --only | --runs) ;;
                --only=* | --runs=*) wrong "${argument%%=*} wants its value after a blank" ;;
                *) by_turns+=("$argument") ;;
            esac
            ;;
    esac
    case $option in --only | --runs) option= ;; *) option=$argument ;; esac
done

setup_packages run
build=$(setup_build_folder "$top")
setup_build "$top" "$build" -DCMAKE_BUILD_TYPE=Release -DEXPERTMESH_TESTS=OFF >&2
cores=$(lscpu -b -p=Core,Socket 2>/dev/null | grep -v '^#' | sort -u | wc -l)
if [ "$cores" -lt 1 ] || [ "$(nproc)" -lt "$cores" ]; then cores=$(nproc); fi
ranks=${ranks:-$cores}
# shellcheck source=mpi-env.sh
. "$top/jobs/mpi-env.sh" "$ranks"

results=$(mktemp -d "${TMPDIR:-/tmp}/expertmesh-bench-XXXXXX")
trap 'rm -rf -- "$results"' EXIT
printf 'bench: 1 rank of %d threads\n' "$cores" >&2
"$build/expertmesh" bench "$@" --threads "$cores" -o csv >"$results/alone.csv" </dev/null
printf 'bench: %d ranks of 1 thread\n' "$ranks" >&2
mpirun -n "$ranks" "$build/expertmesh" bench "$@" --threads 1 -o csv >"$results/ranks.csv" </dev/null

pairs=()
for ((turn = 1; turn <= turns; turn++)); do
    printf 'bench: turn %d of %d\n' "$turn" "$turns" >&2
    "$build/expertmesh" bench "${by_turns[@]}" --threads "$cores" -o csv >"$results/alone-$turn.csv" </dev/null
    mpirun -n "$ranks" "$build/expertmesh" bench "${by_turns[@]}" --threads 1 -o csv >"$results/ranks-$turn.csv" </dev/null
    pairs+=("$results/alone-$turn.csv" "$results/ranks-$turn.csv")
done

# rows MODE CSV...: lines of a Markdown table. targets: figures that have one; all: every figure; turns: of pairs of files,
# the rates of the second against the first's, the median of all pairs, and the smallest and the largest. A field may be
# quoted, for the commas in it.
rows() {
    awk -v mode="$1" '
        function fields(line, field,    n, i, c, quoted) {
            n = 1
            field[1] = ""
            for (i = 1; i <= length(line); i++) {
                c = substr(line, i, 1)
                if (c == "\"") quoted = !quoted
                else if (c == "," && !quoted) field[++n] = ""
                else field[n] = field[n] c
            }
            return n
        }
        function or_dash(text) { return text == "" ? "-" : text }
        FNR == 1 { file++; next }
        { fields($0, f) }
        mode == "targets" && f[10] != "" {
            printf "| %s | %s %s | %s %s | %s | %s | %s |\n", f[2], f[4], f[3], f[7], f[8], f[9], f[10], f[11]
        }
        mode == "all" {
            printf "| %s | %s | %s %s | %s | %s | %s | %s |\n", f[1], f[2], f[4], f[3], f[5], or_dash(f[7]), or_dash(f[8]), or_dash(f[9])
        }
        mode == "turns" && f[1] == "model" && f[3] == "tokens/s" {
            if (file % 2 == 1) alone[f[2]] = f[4]
            else if (f[2] in alone) {
                if (!(f[2] in count)) name[++names] = f[2]
                new = f[4] / alone[f[2]]
                for (i = ++count[f[2]]; i > 1 && ratio[f[2], i - 1] > new; i--) ratio[f[2], i] = ratio[f[2], i - 1]
                ratio[f[2], i] = new
                delete alone[f[2]]
            }
        }
        END {
            for (i = 1; i <= names; i++) {
                n = count[name[i]]
                median = (ratio[name[i], int((n + 1) / 2)] + ratio[name[i], int(n / 2) + 1]) / 2
                printf "| %s | %.3f | %.3f to %.3f | >= 0.95 | %s |\n", name[i], median, ratio[name[i], 1], ratio[name[i], n], (median >= 0.95 ? "yes" : "no")
            }
        }' "${@:2}"
}

revision=$("$build/expertmesh" --version)
processor=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
printf '# %s, %s\n\n%s, %d cores, %s of memory.\n' "$revision" "$(date -u +%Y-%m-%d)" "${processor:-unknown processor}" \
    "$cores" "$(awk '/^MemTotal:/ { printf "%.0f GB", $2 / 1e6 }' /proc/meminfo)"
target_heading='| what | figure | limit | ratio | target | reached |\n|---|---|---|---|---|---|\n'
all_heading='| part | what | figure | spread | limit | against | ratio |\n|---|---|---|---|---|---|---|\n'
# shellcheck disable=SC2059 # the headings are formats
{
    printf '\n## Targets, 1 rank of %d threads\n\n' "$cores"
    printf "$target_heading"
    rows targets "$results/alone.csv"
    printf '\n## Targets, %d ranks of 1 thread\n\n' "$ranks"
    printf "$target_heading"
    rows targets "$results/ranks.csv"
    if [ "$turns" -gt 0 ]; then
        printf '\n## Tokens a second: %d ranks of 1 thread against 1 rank of %d threads, %d turns\n\n' "$ranks" "$cores" "$turns"
        printf '| what | ratio, median | all turns | target | reached |\n|---|---|---|---|---|\n'
        rows turns "${pairs[@]}"
    fi
    printf '\n## All figures, 1 rank of %d threads\n\n' "$cores"
    printf "$all_heading"
    rows all "$results/alone.csv"
    printf '\n## All figures, %d ranks of 1 thread\n\n' "$ranks"
    printf "$all_heading"
    rows all "$results/ranks.csv"
}
