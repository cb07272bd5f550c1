#!/bin/bash
# install.sh PROGRAM SOURCES SCRATCH: what CMake installs works from its new place: the program, and the library through its
# exported package and public headers.
set -euo pipefail
scratch=$3 build=$(dirname "$1")
rm -rf "$scratch" && mkdir -p "$scratch/user" && cd "$scratch"
cmake --install "$build" --prefix "$scratch/prefix" >log 2>&1 || { cat log; exit 1; }
"$scratch/prefix/bin/expertmesh" --version
for file in man/man1/expertmesh.1 bash-completion/completions/expertmesh; do
    if [ ! -s "$scratch/prefix/share/$file" ]; then
        echo "share/$file is not installed"
        exit 1
    fi
done

cat >user/CMakeLists.txt <<'CMAKE'
cmake_minimum_required(VERSION 3.18)
project(user LANGUAGES C)
find_package(expertmesh 0.1 REQUIRED)
add_executable(user user.c)
target_link_libraries(user PRIVATE expertmesh::expertmesh)
CMAKE
for header in "$scratch"/prefix/include/expertmesh/*.h; do echo "#include <expertmesh/$(basename "$header")>"; done >user/user.c
cat >>user/user.c <<'C'
#include <stdio.h>
int main(void)
{
    printf("%lld\n", (long long)em_model_size_of(&em_preset_find("grok1")->config).parameters);
    return 0;
}
C
if ! { cmake -S user -B user/build -DCMAKE_PREFIX_PATH="$scratch/prefix" && cmake --build user/build; } >log 2>&1; then
    cat log
    exit 1
fi
# where lscpu says nothing (no /sys in a container), jobs/mpi-env.sh counts otherwise, also for a strict script
mkdir -p mute
printf '#!/bin/sh\nexit 1\n' >mute/lscpu
chmod +x mute/lscpu
if ! PATH=$PWD/mute:$PATH bash -euo pipefail -c '. "$1" 4' - "$2/jobs/mpi-env.sh"; then
    echo 'jobs/mpi-env.sh ends a strict script where lscpu fails'
    exit 1
fi
[ "$(user/build/user)" = 315684820992 ]
