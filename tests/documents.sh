#!/bin/bash
# tests/documents.sh: the man page and the completion for bash say what --help says: every command, option and meaning; groff takes
# the one without a warning, and bash completes what is typed with the other.
#
#   documents.sh PROGRAM SOURCES SCRATCH
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh" "$@"

# They need no MPI: what would keep it from starting does not matter.
well env OMPI_MCA_btl=nonsense OMPI_MCA_pml=nonsense "$program" man
cp "$logs/out" expertmesh.1
well env OMPI_MCA_btl=nonsense OMPI_MCA_pml=nonsense "$program" completion bash
cp "$logs/out" completion
for command in man completion; do
    well "$program" "$command" --help
    check "$command --help" 'its usage' grep -q '^usage: expertmesh man' "$logs/out"
done
well "$program" --help
mapfile -t commands < <(sed -nE 's/^  ([a-z][a-z-]+) +[A-Z].*/\1/p' "$logs/out")
checks=$((checks + 1))
case " ${commands[*]} " in
    *' init run '*' inspect '*' export '*) ;;
    *) fail 'reading the commands in --help' 'all of them' "${commands[*]}" ;;
esac

# ---- the man page ----
if command -v groff >/dev/null; then
    groff -ww -man -Tutf8 expertmesh.1 >page 2>warnings
    checks=$((checks + 1))
    if [ -s warnings ]; then fail 'groff -ww -man expertmesh.1' 'no warning' "$(cat warnings)"; fi
    groff -ww -man -Tascii -P-cbou -rLL=400n expertmesh.1 >plain 2>/dev/null # no bold, and lines long enough for each meaning
    tr -s ' \n' ' ' <plain >page.words
fi
# in_page WHAT TEXT: with any blanks and ends of lines between its words.
in_page() {
    checks=$((checks + 1))
    if [ -s page.words ] && ! grep -qF -- "$(tr -s ' \n' ' ' <<<"$2" | sed 's/ $//')" page.words; then fail "$1 --help" "in the man page: $2" 'it is not'; fi
}

# What the program reads of its environment.
mapfile -t variables < <(grep -rhoE 'getenv\("(EXPERTMESH_|TMP)[A-Z_]+' "$sources/src" | cut -d '"' -f 2 | sort -u)
check 'variables of the environment' 'some' [ ${#variables[@]} -ge 3 ]
for variable in "${variables[@]}"; do in_page environment "$variable"; done

# ---- both have what --help has ----
for command in "${commands[@]}"; do
    well "$program" "$command" --help
    cp "$logs/out" help
    in_page "$command" "$(sed -n 3p help)" # the meaning
    # options whose meaning is below them, in one line
    sed -E ':again; /^  (-[a-z], )?--[^ ]+ [^ ]+$/ { N; s/\n +/  /; }' help >lines
    while read -r name meaning; do
        if [ "$name" = help ]; then continue; fi # told once, for all
        in_page "$command" "$name"
        in_page "$command" "$meaning"
        checks=$((checks + 1))
        grep -q -- "^            options='.*--${name}[ ']" <(sed -n "/^        $command)/,/;;/p" completion) ||
            fail "$command --$name" 'in the completion' 'it is not'
    done < <(sed -nE 's/^  (-[a-z], )?--([a-z0-9-]+)( [^ ]+)? +(.*)/\2 \4/p' lines)
done

# ---- bash completes ----
cat >complete.bash <<'BASH'
# complete.bash SCRIPT WORD...: what the last word may become, one a line.
. "$1" || exit
shift
COMP_WORDS=("$@")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_expertmesh
[ ${#COMPREPLY[@]} = 0 ] || printf '%s\n' "${COMPREPLY[@]}"
BASH
bash -n completion || fail 'bash -n completion' 'a script' 'none'
# completes EXPECTED WORD...: the words that it is completed to, in any order.
completes() {
    local wanted=$1 seen
    shift
    checks=$((checks + 1))
    seen=$(bash -u ../complete.bash ../completion expertmesh "$@" 2>&1 | sort | paste -sd ' ')
    wanted=$(tr ' ' '\n' <<<"$wanted" | sort | paste -sd ' ')
    if [ "$seen" != "$wanted" ]; then fail "completing $(spell expertmesh "$@")" "$wanted" "$seen"; fi
}
mkdir -p files/folder
cd files || exit
touch a.h5 'two words.h5' t.h5
completes 'init inspect' in
completes 'man' ma
completes '--help --version' --
completes '--compute --config' run --co
completes '--temperature' run --preset tiny --tem
completes 'f32 bf16 int8' run --compute ''
completes 'bf16' init --storage b
completes 'tiny' run --preset t
completes 'tiny' run --preset = t
completes 'article demo grok1 tiny' run --preset =
completes 'glu mlp' init --ffn-kind ''
completes 'csv json' bench -o ''
completes 'json' inspect t.h5 experts --output j
completes 't.h5 two words.h5' inspect t.h5 neuron --trace t
completes 'a.h5 folder t.h5 two words.h5' run --weights ''
rm 'two words.h5'
completes 't.h5' inspect t
completes 'neuron neurons' inspect t.h5 neu
completes 'experts' inspect --layer 3 t.h5 exp
completes 't.h5' inspect --layer 3 t
completes 'counts' export t.h5 c
completes 'a.h5' compare t.h5 a
completes 'sliced spread' run --layout s
completes '' run --seed ''
completes '' run --threads 4

finish
