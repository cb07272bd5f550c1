# shellcheck shell=bash
# tests/traces.sh: what the tests that compare traces share.

# alike A.h5 B.h5: the datasets that h5diff, which knows nothing of this project, finds in both files and the same to the last bit,
# a line each. One start tells it of all: a start takes longer than looking. h5diff's status 1 says that anything differs, as
# attributes of the run always do.
alike() {
    { h5diff -v "$1" "$2" || [ $? = 1 ]; } | awk '
        /^dataset: <\// { name = substr($2, 3, length($2) - 3); next }
        name != "" && $0 == "0 differences found" { print name }
        { name = "" }' | sort
}
