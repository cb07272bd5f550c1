# shellcheck shell=bash
# tests/common.sh: what the tests that start the program share.
#
#   . "$(dirname "${BASH_SOURCE[0]}")/common.sh" "$@"       with the arguments PROGRAM SOURCES SCRATCH
#
# Empties SCRATCH and goes to SCRATCH/work. Every failed check prints what was done, expected and seen; `finish` prints one
# line and leaves with 1 where any failed. `skip` leaves with 77, which CTest shows as skipped.
set -uo pipefail

if [ $# != 3 ]; then
    printf 'usage: %s PROGRAM SOURCES SCRATCH\n' "$0" >&2
    exit 64
fi
program=$(realpath "$1") sources=$(realpath "$2") scratch=$(realpath -m "$3")
test_name=$(basename "$0" .sh)
rm -rf -- "${scratch:?}"
mkdir -p "$scratch/work" "$scratch/logs" || exit
cd "$scratch/work" || exit
logs=$scratch/logs

# shellcheck source=../jobs/mpi-env.sh
. "$sources/jobs/mpi-env.sh" 12
# Threads that wait give their core away, or the ranks and tests beside them starve.
export OMP_WAIT_POLICY=passive
# One rank without mpirun starts in a tenth of the time with no daemon beside it. All such ranks call themselves by one name,
# so those of two tests at once must not share Open MPI's folder; its path must be short.
export OMPI_MCA_ess_singleton_isolated=1
session=$(mktemp -d "${TMPDIR:-/tmp}/expertmesh-XXXXXX") || exit
export OMPI_MCA_orte_tmpdir_base=$session
clean_up() { rm -rf -- "${session:?}"; }
trap clean_up EXIT

checks=0 failures=0 slowest=0 slowest_what=nothing

skip() {
    printf '%s: skipped: %s\n' "$test_name" "$*"
    exit 77
}

# need COMMAND...
need() {
    local command
    for command; do
        command -v "$command" >/dev/null || skip "there is no $command on this machine"
    done
}

# python_with MODULE...: in $python, a Python 3 that has them all.
python_with() {
    local imports
    imports=$(printf 'import %s;' "$@")
    for python in ${PYTHON-} python3 /usr/bin/python3; do
        if "$python" -c "$imports" 2>/dev/null; then return; fi
    done
    skip "no python3 here has all of: $*"
}

# fail DONE EXPECTED SEEN: of what was seen the first lines.
fail() {
    local seen
    seen=$(sed -n '1,12p; 13s/.*/.../p' <<<"$3")
    failures=$((failures + 1))
    printf '%s: FAILED\n  done:     %s\n  expected: %s\n  seen:     %s\n' "$test_name" "$1" "$2" "${seen//$'\n'/$'\n'            }"
}

# check DONE EXPECTED COMMAND...: the command must succeed; what it prints is what was seen.
check() {
    local seen
    checks=$((checks + 1))
    seen=$("${@:3}" 2>&1) || fail "$1" "$2" "${seen:-exit code $?}"
}

finish() {
    if [ "$failures" -gt 0 ]; then
        printf '%s: %d of %d checks failed\n' "$test_name" "$failures" "$checks"
        exit 1
    fi
    printf '%s: %d checks well; slowest %d ms: %s\n' "$test_name" "$checks" "$slowest" "$slowest_what"
}

# Every folder under the working folder by name; every file with its size, time of last change and identity; in no order.
snapshot() { find . -type d -print -o -printf '%p %s %T@ %i\n'; }

# The arguments as one would type them.
spell() { printf '%q ' "$@"; }

# watch COMMAND...: its exit code in $status (124: still running after three minutes: on a busy machine, where ranks that wait for
# each other have a core in turns, some take one), its output in logs/out and logs/err, the time it took, in ms, in $took.
watch() {
    local start=${EPOCHREALTIME/[.,]/}
    timeout -k 2 180 "$@" >"$logs/out" 2>"$logs/err" </dev/null
    status=$?
    took=$(((${EPOCHREALTIME/[.,]/} - start) / 1000))
    if [ "$took" -gt "$slowest" ]; then
        slowest=$took slowest_what=$(spell "${@##*/}")
        if [ ${#slowest_what} -gt 150 ]; then slowest_what=${slowest_what::150}...; fi
    fi
}

# refused CODE WORD... -- COMMAND...: it must end with the exit code and one message that has every word, and leave all
# files as they are. On a quiet machine that takes well under 2 s; more than 30 s is a failure anywhere.
refused() {
    local code=$1 words=() word before after seen line messages='' count=0
    shift
    while [ "$1" != -- ]; do
        words+=("$1")
        shift
    done
    shift
    checks=$((checks + 1))
    before=$(snapshot)
    watch "$@"
    after=$(snapshot)
    while IFS= read -r line || [ -n "$line" ]; do # hundreds of checks do without a process for each look
        case $line in
            'expertmesh: '*) messages+=$line$'\n' count=$((count + 1)) ;;
        esac
    done <"$logs/err"
    if [ "$took" -gt 30000 ]; then fail "$(spell "$@")" 'an end within 30 s' "$took ms"; fi
    if [ "$status" != "$code" ]; then fail "$(spell "$@")" "exit code $code" "$(ended)"; fi
    if [ "$count" != 1 ]; then fail "$(spell "$@")" 'one line that begins with "expertmesh: "' "$(ended)"; fi
    for word in "${words[@]}"; do
        case $messages in
            *"$word"*) ;;
            *) fail "$(spell "$@")" "a message with \"$word\"" "$(ended)" ;;
        esac
    done
    if [ "$before" != "$after" ] && ! seen=$(diff <(sort <<<"$before") <(sort <<<"$after")); then
        fail "$(spell "$@")" 'no file changed' "$seen"
    fi
}

# How what `watch` watched ended.
ended() { printf 'exit code %d, on standard error:\n' "$status" && cat -v "$logs/err"; }

# refuse CODE WORD... -- ARGUMENT...: the program must refuse these arguments so, alone and at 4 ranks ($ranks says at how
# many else).
ranks='1 4'
refuse() {
    local expected=() count
    while [ "$1" != -- ]; do
        expected+=("$1")
        shift
    done
    shift
    for count in $ranks; do
        if [ "$count" = 1 ]; then
            refused "${expected[@]}" -- "$program" "$@"
        else
            refused "${expected[@]}" -- mpirun -n "$count" "$program" "$@"
        fi
    done
}

# well COMMAND...: it must succeed; otherwise the test ends here.
well() {
    checks=$((checks + 1))
    watch "$@"
    if [ "$status" != 0 ]; then
        fail "$(spell "$@")" 'exit code 0' "$(ended)"
        finish
    fi
}
