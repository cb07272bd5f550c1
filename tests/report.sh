#!/bin/bash
# tests/report.sh: pages of traces: in Chromium, light and dark, wide and narrow, with and without scripts, every number computed
# again from the trace; traces of a part of a run, and of a run that was killed; what is refused.
#
#   report.sh PROGRAM SOURCES SCRATCH
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh" "$@"
python_with h5py numpy
export PYTHONDONTWRITEBYTECODE=1

run=(run --preset tiny --num-layers 5 --emb-size 48 --num-q-heads 6 --num-kv-heads 2 --key-size 10 --ffn-size 56)
hostile=$'Zwei L\u00e4ufe\n<script>document.title="hacked"</script> & "quoted" \'s <img src=x onerror=alert(1)>'
well mpirun -n 3 "$program" "${run[@]}" --num-experts 7 --prompt "$hostile" --trace whole.h5
well mpirun -n 6 "$program" "${run[@]}" --num-experts 40 --num-selected-experts 3 --ffn-kind mlp --prompt "$hostile" \
    --generate 5 --trace 'a <b>&".h5'
printf '%s\n' 'two prompts' 'grow together' >prompts
well "$program" "${run[@]}" --prompt-file prompts --generate 6 --trace grown.h5
well mpirun -n 2 "$program" "${run[@]}" --tokens 1,2,255,4,7,9 --trace numbers.h5
well mpirun -n 2 "$program" "${run[@]}" --prompt "$hostile" --trace-only router_probs --trace-layers 1,3 --trace router.h5
well mpirun -n 2 "$program" "${run[@]}" --prompt "$hostile" --trace-layers 4 --trace-tokens 3-9,20 --trace part.h5
well "$program" run --preset tiny --num-layers 1 --prompt x --trace one.h5
# What killed runs leave: after some tokens, and before the first.
cp whole.h5 killed.h5
cp whole.h5 begun.h5
well "$python" -c '
import h5py
for name, tokens in ("killed.h5", 20), ("begun.h5", 0):
    f = h5py.File(name, "r+")
    f.attrs["complete"], f["tokens_done"][()], f["step_tokens"][()], f["layers_done"][()] = 0, tokens, 0, 0'

# ---- what is refused: no page, no part of one, nothing else changed ----
head -c 20000 whole.h5 >damaged.h5
cp whole.h5 short.h5
well "$python" -c 'import h5py; f = h5py.File("short.h5", "r+"); del f["expert_load"]; f["expert_load"] = [1, 2]'
echo 'no trace' >text.h5
well "$python" -c 'import h5py; h5py.File("foreign.h5", "w")["x"] = 1'
well "$program" init --preset tiny -o weights.h5
echo 'there' >there.html
refuse 64 report -o -- report whole.h5
refuse 64 report -- report -o page.html
refuse 64 -- report whole.h5 whole.h5 whole.h5 -o page.html
refuse 66 none.h5 -- report none.h5 -o page.html
refuse 66 none.h5 -- report whole.h5 none.h5 -o page.html
refuse 65 text.h5 -- report text.h5 -o page.html
refuse 65 foreign.h5 format -- report foreign.h5 -o page.html
refuse 65 weights.h5 weights -- report weights.h5 -o page.html
refuse 65 damaged.h5 -- report damaged.h5 -o page.html
refuse 65 short.h5 expert_load -- report whole.h5 short.h5 -o page.html
refuse 64 --layer 'there is no layer 5' -- report whole.h5 -o page.html --layer 5
refuse 64 --layer -- report whole.h5 -o page.html --layer x
refuse 65 router.h5 'layer 2 was not recorded' '--trace-layers ...,2' -- report whole.h5 router.h5 -o page.html --layer 2
refuse 73 there.html --force -- report whole.h5 -o there.html
refuse 73 whole.h5 'would replace' -- report whole.h5 -o whole.h5 --force
refuse 73 none -- report whole.h5 -o none/page.html
refuse 73 /dev/full -- report whole.h5 -o /dev/full
# shellcheck disable=SC2016 # the inner shell's words
refused 73 page.html 'cannot be written' -- bash -c 'ulimit -f 8; exec "$0" "$@"' "$program" report whole.h5 -o page.html
well "$program" report whole.h5 -o there.html --force
check 'a page in place of another' 'a page' grep -q '</html>' there.html

# ---- a run of 64 layers and 2,048 tokens: below 2 MB ----
printf 'What is a neuron, and how many?!%.0s' {1..64} >long
well mpirun -n 2 "$program" run --preset tiny --num-layers 64 --emb-size 24 --num-q-heads 2 --num-kv-heads 1 --key-size 8 \
    --ffn-size 32 --num-experts 32 --sequence-len 2048 --prompt-file long --trace long.h5
well "$program" report long.h5 -o long.html
well "$program" report long.h5 long.h5 -o twice.html
check 'reports of 64 layers' 'below 2 MB' bash -c '! find long.html twice.html -size +2000000c | grep .'

# ---- in the browser ----
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome) ||
    if [ "$failures" -gt 0 ]; then finish; else skip 'there is no Chromium on this machine; all else is well'; fi
pages=0
# page LAYER TRACE...: its report must be right, with the text coloured by that layer; '': as without --layer.
page() {
    local layer=$1
    shift
    pages=$((pages + 1))
    well "$program" report "$@" -o "page$pages.html" ${layer:+--layer "$layer"}
    (IFS=$'\t' && printf '%s\n' "page$pages.html"$'\t'"$layer"$'\t'"$*") >>pages
}
page '' whole.h5
page 3 'a <b>&".h5' grown.h5
page '' router.h5 killed.h5
page 4 numbers.h5 part.h5
page '' one.h5
page '' begun.h5
check "$pages pages" 'what the traces hold, to be read' "$python" "$sources/tests/report.py" "$browser" pages
finish
