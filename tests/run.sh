#!/bin/bash
# tests/run.sh: every check there is: the format, warnings with two compilers, memory errors, and all tests.
#
#   tests/run.sh [--quick] [-R REGEX]
#
#   --quick     leave out the clang build and the sanitizers
#   -R REGEX    of the tests, only those whose name matches (as for ctest)
#
# EXPERTMESH_FUZZ_SECONDS=3600 in the environment fuzzes each reader of foreign files for an hour instead of a minute.
#
# Builds in build/clang, build/gcc and build/sanitize. A failed step does not keep the others from running; the status is 1
# when one failed, 64 for wrong usage, 69 when packages are missing and cannot be installed from here. The last line is
# CTest's last.
set -uo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck source=../jobs/setup.sh
. "$top/jobs/setup.sh"

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; }

quick=no select=()
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help)
            usage
            exit 0
            ;;
        --quick) quick=yes ;;
        -R)
            if [ $# -lt 2 ]; then
                echo 'tests: -R needs a value (--help says more)' >&2
                exit 64
            fi
            select=(-R "$2")
            shift
            ;;
        *)
            printf 'tests: what is %s? (--help says more)\n' "$1" >&2
            exit 64
            ;;
    esac
    shift
done

failed=()
# step WHAT COMMAND...: a heading with the time since the start, then the command; a failure is kept for the end.
step() {
    printf '== %d:%02d  %s\n' $((SECONDS / 60)) $((SECONDS % 60)) "$1"
    if "${@:2}"; then return 0; fi
    failed+=("$1")
    return 1
}

# Files of the sources whose path from the top matches the extended regular expression, each ended by a NUL.
sources() {
    if ! git ls-files -z --cached --others --exclude-standard 2>/dev/null; then
        find . \( -name .git -o -name build \) -prune -o -type f -printf '%P\0'
    fi | grep -zE "$1" | while IFS= read -r -d '' file; do
        if [ -f "$file" ]; then printf '%s\0' "$file"; fi # in the index, and deleted
    done
}

check_format() {
    local formatter=clang-format-14
    if ! command -v "$formatter" >/dev/null; then formatter=clang-format; fi
    sources '^(src|include|tests)/.*\.[ch]$' | xargs -0r "$formatter" --style=file --dry-run --Werror
}

check_scripts() {
    sources '(\.sh|^\.ci/run)$' | xargs -0r shellcheck -x -P SCRIPTDIR
}

# build FOLDER COMPILER OPTION...: with every warning an error.
build() {
    setup_build "$top" "$builds/$1" -DCMAKE_C_COMPILER="$2" -DEXPERTMESH_WERROR=ON -DEXPERTMESH_TESTS=ON "${@:3}"
}

# The sanitizers' build. What MPI itself leaks must be told from what we leak, and that goes by the library that allocated;
# but Open MPI unloads its plug-ins at the end, and then nobody knows whose the memory was. So here nothing is unloaded.
build_sanitize() {
    local folder=$builds/sanitize
    mkdir -p "$folder" || return 73
    printf 'int dlclose(void *library);\nint dlclose(void *library)\n{\n    (void)library;\n    return 0;\n}\n' |
        gcc -x c -c -o "$folder/keep-libraries.o" - || return 1
    build sanitize gcc -DCMAKE_BUILD_TYPE=RelWithDebInfo -DEXPERTMESH_SANITIZE=ON \
        "-DCMAKE_EXE_LINKER_FLAGS=\"$folder/keep-libraries.o\" -rdynamic"
}

test_sanitize() {
    local folder=$builds/sanitize leaks=1
    printf 'leak:%s\n' libmpi. libopen-pal libopen-rte libpmix libhwloc libevent /openmpi/ /pmix >"$folder/leaks-of-mpi"
    # The leak check stops its process to look at it, which some containers forbid.
    if ! printf 'int main(void) { return 0; }\n' | gcc -fsanitize=address -x c -o "$folder/leaks-work" - ||
        ! "$folder/leaks-work" 2>/dev/null; then
        echo 'leaks are not looked for: this machine does not let them be'
        leaks=0
    fi
    (
        export ASAN_OPTIONS="detect_leaks=$leaks:fast_unwind_on_malloc=0${ASAN_OPTIONS:+:$ASAN_OPTIONS}"
        export LSAN_OPTIONS="suppressions='$folder/leaks-of-mpi':print_suppressions=0${LSAN_OPTIONS:+:$LSAN_OPTIONS}"
        export UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1${UBSAN_OPTIONS:+:$UBSAN_OPTIONS}"
        cd "$folder" && ctest -L sanitize -j "$(nproc)" --output-on-failure ${select[@]+"${select[@]}"} </dev/null
    )
}

# All tests, one more at once than cores, as many wait more than they compute. CTest's line of total time is kept back, to be the
# last of all.
test_all() {
    (cd "$builds/gcc" && ctest -j $(($(nproc) + 1)) --output-on-failure --no-tests=error ${select[@]+"${select[@]}"} </dev/null 2>&1) |
        tee "$builds/gcc/ctest.log" |
        while IFS= read -r line; do
            case $line in 'Total Test time'*) ;; *) printf '%s\n' "$line" ;; esac
        done
}

slowest_tests() {
    sed -nE 's/^ *[0-9]+\/[0-9]+ Test +#[0-9]+: ([^ ]+) .* ([0-9.]+) sec *$/\2 \1/p' "$builds/gcc/ctest.log" |
        sort -rn | head -n 10 | awk '{ printf "%8.2f s  %s\n", $1, $2 }'
}

# What was not tested, whole tests and parts of them, and why: CTest keeps the words of tests that did not fail to itself.
not_tested() {
    grep -hE '^([a-z_]+: )?([^ ]+ )?(skipped|left out): ' "$builds/gcc/Testing/Temporary/LastTest.log" | sort | uniq -c |
        sed -E 's/^ *1 /  /; s/^ *([0-9]+) (.*)/  \2 (\1 times)/' ||
        echo '  (all was)'
}

cd "$top" || exit 70
setup_packages test || exit
builds=$(setup_build_folder "$top") || exit
# shellcheck source=../jobs/mpi-env.sh
. "$top/jobs/mpi-env.sh" 12

step 'format of the C sources' check_format
step 'shell scripts' check_scripts
if [ "$quick" = no ]; then
    step 'build with clang' build clang clang -DCMAKE_BUILD_TYPE=Release
fi
if [ "$quick" = no ] && step 'build with the sanitizers' build_sanitize; then
    step 'tests under the sanitizers' test_sanitize
fi
# A build that failed may have left the programs of an older one: those are not tested.
rm -f "$builds/gcc/ctest.log"
if step 'build with gcc' build gcc gcc -DCMAKE_BUILD_TYPE=Release; then
    step 'all tests' test_all
fi
if [ -s "$builds/gcc/ctest.log" ]; then
    step 'slowest tests' slowest_tests
    step 'not tested here' not_tested
fi

step 'done' true
for name in ${failed[@]+"${failed[@]}"}; do
    printf 'FAILED: %s\n' "$name"
done
grep -s '^Total Test time' "$builds/gcc/ctest.log"
[ ${#failed[@]} = 0 ]
