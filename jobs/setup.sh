#!/bin/bash
# jobs/setup.sh: what a machine needs before Expertmesh can be built: packages, and a folder to build in.
#
#   jobs/setup.sh run     what it takes to build and run the program
#   jobs/setup.sh test    that, and what the tests use
#
# With apt-get (Debian, Ubuntu) it installs what is missing, as root or through sudo; when nothing is missing it does
# nothing, and needs neither root nor a network. Without apt-get, or without the right to use it, it names what is missing
# and where to get it, and ends with status 69. Sourced, it runs nothing and gives its functions to demo.sh and tests/run.sh.

# One line a package:
#   need | Debian and Ubuntu package | what it is for | probe | Spack package | environment module
# A probe finds the thing without apt, and is one of
#   command NAME...                      one of these commands
#   library HEADER LIBRARY PKGCONFIG...  a program with the header compiles, links to the library (- for none) and needs no
#                                        more flags than one of the pkg-config names, or CMAKE_PREFIX_PATH, gives
#   python MODULE                        python3 imports it
#   fuzzer                               clang makes a fuzzer
setup_table() {
    cat <<'TABLE'
run |gcc             |C compiler                           |command gcc cc                                   |gcc        |GCC
run |libc6-dev       |C library headers                    |library stdio.h m                                |gcc        |GCC
run |make            |build tool                           |command make gmake                               |gmake      |make
run |cmake           |build system                         |command cmake                                    |cmake      |CMake
run |pkg-config      |finds the libraries                  |command pkg-config pkgconf                       |pkgconf    |pkgconf
run |libopenmpi-dev  |MPI: headers and mpicc               |command mpicc                                    |openmpi    |OpenMPI
run |openmpi-bin     |MPI: mpirun                          |command mpirun                                   |openmpi    |OpenMPI
run |libhdf5-dev     |weights and traces (serial HDF5)     |library hdf5.h hdf5 hdf5-serial hdf5             |hdf5~mpi   |HDF5
run |libcjson-dev    |configuration files                  |library cjson/cJSON.h cjson libcjson             |cjson      |cJSON
run |zlib1g-dev      |checksums of checkpoints and weights |library zlib.h z zlib                            |zlib       |zlib
test|libsentencepiece-dev|--tokenizer                       |command spm_train                                |sentencepiece|SentencePiece
test|sentencepiece   |trains the tokenizers of the tests   |command spm_train                                |sentencepiece|SentencePiece
test|g++             |--tokenizer: its library is C++      |command g++ c++                                  |gcc        |GCC
test|librandom123-dev|Philox as published                  |library Random123/philox.h - random123           |random123  |Random123
run |hdf5-tools      |looking at a trace: h5ls, h5dump     |command h5dump                                   |hdf5~mpi   |HDF5
test|clang           |the second compiler                  |command clang                                    |llvm@14    |Clang/14
test|libclang-rt-14-dev|the fuzzers of the second compiler|fuzzer                                           |llvm@14    |Clang/14
test|libomp-dev      |OpenMP for the second compiler       |library omp.h omp                                |llvm-openmp|Clang/14
test|clang-format-14 |the format check, version 14         |command clang-format-14                          |llvm@14    |Clang/14
test|libcunit1-dev   |unit tests                           |library CUnit/Basic.h cunit cunit                |cunit      |CUnit
test|procps          |watches the processes of a run       |command pgrep                                    |procps     |procps
test|jq              |looks into JSON                      |command jq                                       |jq         |jq
test|iproute2        |hosts made of network namespaces     |command ip                                       |iproute2   |iproute2
run |python3-h5py    |looking at a trace from Python       |python h5py                                      |py-h5py    |h5py
test|python3-xarray  |reading a trace with named axes      |python xarray                                    |py-xarray  |xarray
test|python3-h5netcdf|lets xarray open HDF5                |python h5netcdf                                  |py-h5netcdf|h5netcdf
test|slurm-wlm      |a SLURM to submit the job scripts to |command slurmctld /usr/sbin/slurmctld            |slurm      |Slurm
test|munge          |how the parts of SLURM know another  |command munged /usr/sbin/munged                  |munge      |munge
test|gnuplot-nox    |plots of the scaling jobs            |command gnuplot                                  |gnuplot    |gnuplot
test|r-bioc-rhdf5    |reading a trace from R               |command Rscript                                  |r-rhdf5    |R-bundle-Bioconductor
test|chromium        |opens reports                        |command chromium chromium-browser google-chrome  |chromium   |Chromium
test|groff-base      |checks the manual page                |command groff                                   |groff      |groff
test|shellcheck      |checks the shell scripts             |command shellcheck                               |shellcheck |ShellCheck
TABLE
}

setup_say() { printf 'setup: %s\n' "$*" >&2; }

# The table's lines for run or test, without the padding.
setup_wanted() {
    setup_table | sed 's/ *| */|/g' | if [ "$1" = test ]; then cat; else grep '^run|'; fi
}

# Those of the lines on standard input whose package dpkg does not have installed.
setup_not_installed() {
    local lines installed need package rest
    lines=$(cat)
    # shellcheck disable=SC2046 # one word a package
    installed=$(dpkg-query -W -f '${Package}|${db:Status-Status}\n' \
        $(printf '%s\n' "$lines" | cut -d '|' -f 2) 2>/dev/null) || true # it fails when any is unknown
    while IFS='|' read -r need package rest; do
        grep -qxF "$package|installed" <<<"$installed" || printf '%s|%s|%s\n' "$need" "$package" "$rest"
    done <<<"$lines"
}

# Those of the lines on standard input whose probe fails.
setup_not_found() {
    local need package purpose probe rest
    while IFS='|' read -r need package purpose probe rest; do
        # shellcheck disable=SC2086 # a probe is a verb and its words
        setup_probe_$probe </dev/null || printf '%s|%s|%s|%s|%s\n' "$need" "$package" "$purpose" "$probe" "$rest"
    done
}

setup_probe_command() {
    local name
    for name; do
        if command -v "$name" >/dev/null 2>&1; then return 0; fi
    done
    return 1
}

setup_probe_python() {
    python3 -c "import $1" >/dev/null 2>&1
}

setup_probe_fuzzer() {
    printf 'int LLVMFuzzerTestOneInput(const char *d, unsigned long n) { return d && n && 0; }\n' |
        clang -fsanitize=fuzzer,address,undefined -x c - -o /dev/null >/dev/null 2>&1
}

setup_probe_library() {
    local header=$1 library=$2 name prefix prefixes flags
    shift 2
    if setup_links "$header" "$library"; then return 0; fi
    for name; do
        # shellcheck disable=SC2086 # flags are words
        if flags=$(pkg-config --cflags --libs "$name" 2>/dev/null) && setup_links "$header" - $flags; then return 0; fi
    done
    IFS=: read -ra prefixes <<<"${CMAKE_PREFIX_PATH:-}"
    for prefix in ${prefixes[@]+"${prefixes[@]}"}; do
        if setup_links "$header" "$library" "-I$prefix/include" "-L$prefix/lib" "-L$prefix/lib64"; then return 0; fi
    done
    return 1
}

# Whether a program that includes the header links with the library (- for none) and the flags.
setup_links() {
    local header=$1 library=$2
    shift 2
    if [ "$library" != - ]; then set -- "$@" "-l$library"; fi
    printf '#include <%s>\nint main(void) { return 0; }\n' "$header" |
        "${CC:-cc}" -x c - -o /dev/null "$@" >/dev/null 2>&1
}

# Say which packages the lines on standard input name, what for, and what they are called elsewhere.
setup_list() {
    local need package purpose probe spack module
    {
        printf '  %-17s %-36s %-12s %s\n' package 'what for' Spack 'environment module'
        while IFS='|' read -r need package purpose probe spack module; do
            printf '  %-17s %-36s %-12s %s\n' "$package" "$purpose" "$spack" "$module"
        done
    } >&2
}

# Words of one column of the lines, each once, on one line.
setup_column() {
    cut -d '|' -f "$1" | awk '!seen[$0]++' | paste -sd ' ' -
}

# setup_packages run|test: install what is missing. Status 69 with a message when that cannot be done from here.
setup_packages() {
    local missing packages
    if command -v apt-get >/dev/null 2>&1 && command -v dpkg-query >/dev/null 2>&1; then
        missing=$(setup_wanted "$1" | setup_not_installed)
        # Who would have to ask for the right to install first looks whether the thing is there from another source.
        if [ -n "$missing" ] && [ "$(id -u)" != 0 ]; then missing=$(setup_not_found <<<"$missing"); fi
        if [ -z "$missing" ]; then return 0; fi
        packages=$(setup_column 2 <<<"$missing")
        # shellcheck disable=SC2086 # one word a package
        if setup_apt $packages; then return 0; fi
        setup_say 'these packages are missing:'
        setup_list <<<"$missing"
        setup_say 'an administrator installs them with'
        printf '  apt-get update && apt-get install -y --no-install-recommends %s\n' "$packages" >&2
        return 69
    fi
    missing=$(setup_wanted "$1" | setup_not_found)
    if [ -z "$missing" ]; then return 0; fi
    setup_say 'this machine has no apt-get, and these are missing:'
    setup_list <<<"$missing"
    if ! command -v "${CC:-cc}" >/dev/null 2>&1; then
        setup_say 'no library can be looked for without a C compiler, so some of them may be there'
    fi
    setup_say 'with Spack, install and load them by'
    printf '  spack install %s\n  spack load %s\n' "$(setup_column 5 <<<"$missing")" "$(setup_column 5 <<<"$missing")" >&2
    setup_say 'or, where the site has environment modules (names differ a little between sites; module spider finds them), by'
    printf '  module load %s\n' "$(setup_column 6 <<<"$missing")" >&2
    return 69
}

# Install the packages by apt-get, as root or through sudo, quietly unless it fails.
setup_apt() {
    local root=() log
    if [ "$(id -u)" != 0 ]; then
        if ! command -v sudo >/dev/null 2>&1; then
            setup_say 'this user is not root, and there is no sudo'
            return 1
        elif sudo -n true 2>/dev/null; then
            root=(sudo -n)
        elif [ -t 2 ] && : 2>/dev/null </dev/tty; then
            setup_say "sudo asks for your password to install: $*"
            sudo -v || return 1
            root=(sudo)
        else
            setup_say 'this user is not root, and sudo wants a password, but there is no terminal to ask on'
            return 1
        fi
    fi
    setup_say "installing with apt-get: $*"
    log=$(mktemp) || return 1
    # A package source that cannot be reached need not be the one that has these: go on, and show both if that fails too.
    ${root[@]+"${root[@]}"} env DEBIAN_FRONTEND=noninteractive apt-get update >"$log" 2>&1 </dev/null ||
        setup_say 'apt-get update failed; trying with the package lists that are there'
    if ${root[@]+"${root[@]}"} env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 \
        install -y --no-install-recommends "$@" >>"$log" 2>&1 </dev/null; then
        rm -f "$log"
        return 0
    fi
    setup_say "apt-get failed; the end of $log:"
    tail -n 20 "$log" >&2
    if grep -q 'Unable to locate package' "$log" && grep -qs '^ID=ubuntu' /etc/os-release; then
        setup_say "on Ubuntu some of these are in the universe component: add-apt-repository universe"
    fi
    return 1
}

# setup_build_folder TOP: print the folder to build in: TOP/build, or, where this user may not write all of that, one of
# his own that belongs to this copy of the sources.
setup_build_folder() {
    local folder=$1/build
    if ! mkdir -p "$folder" 2>/dev/null || [ -n "$(find "$folder" ! -type l ! -writable -print -quit 2>&1)" ]; then
        folder=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/expertmesh/build-$(printf %s "$1" | cksum | cut -d ' ' -f 1)
        mkdir -p "$folder" || return 73
    fi
    printf '%s\n' "$folder"
}

# setup_build TOP FOLDER OPTION...: configure and build, quietly unless it fails. FOLDER/build.log keeps what was said.
setup_build() {
    local top=$1 folder=$2 status=0
    shift 2
    mkdir -p "$folder" || return 73
    # CMake refuses a folder that was configured for another place: a clone that has moved.
    if [ -f "$folder/CMakeCache.txt" ] &&
        ! grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$top" "$folder/CMakeCache.txt"; then
        rm -rf "$folder/CMakeCache.txt" "$folder/CMakeFiles"
    fi
    {
        cmake -S "$top" -B "$folder" "$@" && cmake --build "$folder" -j "$(nproc)"
    } >"$folder/build.log" 2>&1 </dev/null || status=$?
    if [ "$status" != 0 ]; then
        printf 'the build failed; the end of %s:\n' "$folder/build.log" >&2
        tail -n 40 "$folder/build.log" >&2
    fi
    return "$status"
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    case ${1-} in
        run | test) setup_packages "$1" ;;
        -h | --help) sed -n '2,/^$/s/^# \{0,1\}//p' "$0" ;;
        *)
            echo 'usage: jobs/setup.sh run|test (--help says more)' >&2
            exit 64
            ;;
    esac
fi
