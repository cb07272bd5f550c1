#!/bin/bash
# tests/import.sh: checkpoints in every form become weights: the same numbers as written directly in the weights format, at 1
# and 4 ranks, and a run of them has the same logits; parts of a checkpoint; an import that was interrupted goes on.
#
#   import.sh PROGRAM SOURCES SCRATCH
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh" "$@"
checkpoints=${CHECKPOINTS:?}
python_with h5py numpy

same() { check "$1 and $2" 'the same datasets and config' "$checkpoints" same "$1" "$2"; }

# form NAME SOURCE OPTION...: written by the test, imported at 1 and 4 ranks, run.
form() {
    local name=$1 source=$2
    shift 2
    well "$program" import "$source" -o "$name-1.h5" "$@"
    well mpirun -n 4 "$program" import "$source" -o "$name-4.h5" "$@"
    same "$name.h5" "$name-1.h5"
    same "$name.h5" "$name-4.h5"
    check "$name-1.h5 and $name-4.h5" 'the same bytes' cmp "$name-1.h5" "$name-4.h5"
    well "$program" run --weights "$name.h5" --tokens 1,2,3,50 --trace "$name-trace.h5"
    well mpirun -n 4 "$program" run --weights "$name-4.h5" --tokens 1,2,3,50 --trace "$name-4-trace.h5"
    check "$name-trace.h5 and $name-4-trace.h5" 'logits within 2e-5' \
        "$program" compare "$name-trace.h5" "$name-4-trace.h5" --tolerance 2e-5
}

# ---- every form ----
for name in official transformer model gguf gguf-split q8; do
    out=$name
    case $name in gguf | q8) out=$name.gguf ;; esac
    check "checkpoints $name" 'a checkpoint' "$checkpoints" $name $out $name.h5
done
form official official --config official.json
form transformer transformer
form model model
form gguf gguf.gguf
form gguf-split gguf-split-00001-of-00003.gguf
form q8 q8.gguf
same transformer-1.h5 transformer.h5 # both ways: no dataset more
mkdir outer && cp -r official outer/ckpt-0
well "$program" import outer -o outer.h5 --config official.json
same official.h5 outer.h5
well "$program" import model/model.safetensors.index.json -o index.h5
same model.h5 index.h5
well "$program" import transformer/model.safetensors -o file.h5
same transformer.h5 file.h5
cp -r transformer 'any[1]*' # a folder's name is no pattern
well "$program" import 'any[1]*' -o any.h5
same transformer.h5 any.h5

# ---- keys that are absent, or have their other names: from the shapes, else as in Grok-1 ----
well "$program" init --preset tiny --storage bf16 -o square.h5 # as wide as its heads together
well "$program" export-weights square.h5 --to safetensors -o square
check 'checkpoints with other keys' 'made' "$python" "$sources/tests/keys.py" make
for name in names few heads; do well "$program" import $name -o $name-1.h5; done
well "$program" import few.gguf -o few-gguf-1.h5
check 'imports of checkpoints with other keys' 'the config of the whole, and of Grok-1' "$python" "$sources/tests/keys.py" check

# ---- checksums: any program can repeat them, and damage to any byte is found ----
for ranks in 1 4; do well mpirun -n $ranks "$program" inspect official-1.h5 --verify; done
check 'inspect --verify' 'the number of datasets' grep -q '^official-1.h5: 230 datasets, .* are as they were written' "$logs/out"
cp official-1.h5 damaged.h5
check 'checksums by zlib in Python' 'the same' "$python" - <<'PYTHON'
import zlib, h5py
with h5py.File("official-1.h5") as file, h5py.File("damaged.h5", "r+") as damaged:
    names = [name.decode() if isinstance(name, bytes) else name for name in file["crc32_of"][:]]
    assert len(names) == len(set(names)) == 230
    for name, crc in zip(names, file["crc32"][:]):
        assert zlib.crc32(file[name][...].tobytes()) == crc, name
    damaged["layers/007/ffn_down_scale"][2, 45, 4] += 1e-6
PYTHON
ranks='1 3' refuse 65 damaged.h5 /layers/007/ffn_down_scale '1 of 230' -- inspect damaged.h5 --verify
ranks=1 refuse 65 official.h5 'no checksums' -- inspect official.h5 --verify

# ---- parts, and other storage: against the whole, number by number ----
well "$program" import model -o some.h5 --layers 2,10-11 --experts 0,2
well mpirun -n 3 "$program" import official -o some8.h5 --layers 1,10 --experts 1-2 --config official.json
well "$program" import official -o f32.h5 --storage f32 --config official.json
well mpirun -n 4 "$program" import official -o bf16.h5 --storage bf16 --config official.json
well "$program" import transformer -o int8.h5 --storage int8
well "$program" run --weights some.h5 --tokens 1,2,3
check 'imports of parts and in other types' 'the numbers that the whole has' "$python" "$sources/tests/parts.py"

# ---- memory goes by blocks of 64 MB, not by the largest tensor, 512 MiB; how fast it goes, and what is left, is told ----
cat >peak.py <<'PYTHON'
import os, pty, re, resource, subprocess, sys
terminal, inner = pty.openpty()
reader = subprocess.Popen(["cat"], stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=inner).returncode
os.close(inner), os.close(terminal)
told = reader.communicate()[0].decode()
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
assert code == 0, told
assert peak < 300e6, f"{peak / 1e6:.0f} MB"
assert re.search(r"orted \[#* *\] +\d+% \d+\.\d s, [\d.]+ .?B/s a rank, \d+ s left", told), told
PYTHON
peak() { check "$*" 'at most 300 MB at its peak; rate and time left' "$python" peak.py "$program" "$@"; }
check 'checkpoints large' 'a checkpoint' "$checkpoints" large large large.json
peak import large -o large.h5 --config large.json
peak import large -o large.h5 --force --config large.json --storage bf16 --layers 0 --experts 1
peak export-weights large.h5 --to gguf -o large.gguf --storage f32
rm -rf large large.h5 large.gguf

# ---- interrupted at any write, it goes on where it was ----
disk=${DISK_LIBRARY:?}
writes=$(env LD_PRELOAD="$disk" DISK=tell DISK_TELL=writes "$program" import model -o counted.h5 >/dev/null 2>&1; cat writes)
for n in 1 2 7 $((writes / 3)) $((writes / 2)) $((writes - 1)) "$writes"; do
    rm -f killed.h5*
    env LD_PRELOAD="$disk" DISK="kill=$n" "$program" import model -o killed.h5 >"$logs/out" 2>"$logs/err"
    check "killed at write $n" 'no file of that name' test ! -e killed.h5
    well mpirun -n $((n % 3 + 1)) "$program" import model -o killed.h5
    if [ "$n" -gt 20 ]; then
        check "gone on after write $n of $writes" 'blocks that were there' grep -q 'blocks were there already' "$logs/out"
    fi
    check "killed.h5 after write $n" 'the bytes of one that was not killed' cmp killed.h5 counted.h5
    check "killed.h5 after write $n" 'nothing beside it' test "$(find . -name 'killed.h5*' | wc -l)" = 1
done
# On four ranks that are killed, and gone on with on three.
rm -f killed.h5*
env LD_PRELOAD="$disk" DISK="kill=$((writes / 10))" mpirun -n 4 "$program" import model -o killed.h5 >"$logs/out" 2>"$logs/err"
check 'four ranks killed' 'no file of that name' test ! -e killed.h5
well mpirun -n 3 "$program" import model -o killed.h5
check 'gone on after four ranks were killed' 'blocks that were there' grep -q 'blocks were there already' "$logs/out"
check 'killed.h5 after four ranks' 'the bytes of one that was not killed' cmp killed.h5 counted.h5
# What is there counts only when it is what was written; and another checkpoint begins anew.
rm -f killed.h5*
env LD_PRELOAD="$disk" DISK="kill=$((writes / 2))" "$program" import model -o killed.h5 >"$logs/out" 2>"$logs/err"
check 'damage' 'done' "$python" -c "
import h5py
with h5py.File('killed.h5.partial', 'r+') as file: file['layers/000/attn_norm_pre'][3] += 1"
cp killed.h5.partial other.h5.partial
cp killed.h5.partial.blocks other.h5.partial.blocks
well "$program" import model -o killed.h5
check 'damaged while it was interrupted' 'the bytes of one that was not' cmp killed.h5 counted.h5
well "$program" import transformer -o other.h5
same transformer.h5 other.h5
# A full disk: refused, and gone on with when there is room.
rm -f killed.h5*
env LD_PRELOAD="$disk" DISK="full=$((writes / 2))" "$program" import model -o killed.h5 >"$logs/out" 2>"$logs/err"
check 'a full disk' 'exit code 73' test $? = 73
check 'a full disk' 'no file of that name' test ! -e killed.h5
well "$program" import model -o killed.h5
check 'after a full disk' 'the bytes of one that had room' cmp killed.h5 counted.h5

# ---- round trips: out again and in again ----
for name in transformer model; do
    well mpirun -n 3 "$program" export-weights "$name-1.h5" --to safetensors -o "$name-out"
    well "$program" import "$name-out" -o "$name-back.h5"
    same "$name-1.h5" "$name-back.h5"
    check "$name-back.h5" 'the checksums of what went out' "$python" -c "
import h5py
a, b = h5py.File('$name-1.h5'), h5py.File('$name-back.h5')
assert (a['crc32'][:] == b['crc32'][:]).all()"
done
for name in gguf q8; do
    well mpirun -n 3 "$program" export-weights "$name-1.h5" --to gguf -o "$name-out.gguf"
    well "$program" export-weights "$name-1.h5" --to gguf -o "$name-alone.gguf"
    check "$name-out.gguf" 'the same bytes on any number of ranks' cmp "$name-out.gguf" "$name-alone.gguf"
    well "$program" import "$name-out.gguf" -o "$name-back.h5"
    same "$name-1.h5" "$name-back.h5"
done
# Killed, an export has no file of that name; it begins anew.
for n in 1 2 50; do
    for form in gguf safetensors; do
        env LD_PRELOAD="$disk" DISK="kill=$n" "$program" export-weights model-1.h5 --to $form -o killed-out >"$logs/out" 2>"$logs/err"
        check "export to $form killed at write $n" 'nothing of that name' test ! -e killed-out -a -e killed-out.partial
        well "$program" export-weights model-1.h5 --to $form -o killed-out
        check "export to $form after it was killed" 'nothing beside it' test ! -e killed-out.partial
        if [ $form = safetensors ]; then check killed-out 'the files of one that was not killed' diff -r killed-out model-out; fi
        rm -rf killed-out
    done
done
# What is 8-bit by scales of its own becomes the float32 that it weighs.
well "$program" export-weights official-1.h5 --to safetensors -o official-out
well "$program" import official-out -o official-back.h5
same f32.h5 official-back.h5
well "$program" export-weights official-1.h5 --to safetensors --storage bf16 -o official-bf16
well "$program" import official-bf16 -o official-bf16.h5
same bf16.h5 official-bf16.h5
# Q8_0 from what is not: nearly the same, integers kept where groups hold 32s.
well "$program" init --preset tiny --storage int8 --seed 5 -o tiny8.h5
well "$program" export-weights tiny8.h5 --to gguf --storage int8 -o tiny8.gguf
well "$program" import tiny8.gguf -o tiny8-back.h5
well "$program" export-weights q8-1.h5 --to gguf --storage f32 -o q8-f32.gguf
well "$program" import q8-f32.gguf -o q8-f32.h5
well "$program" export-weights q8-f32.h5 --to gguf --storage int8 -o q8-again.gguf
well "$program" import q8-again.gguf -o q8-again.h5
check 'Q8_0 made anew' 'nearly the same numbers' "$python" "$sources/tests/rounded.py"
mkdir read && echo '{}' >read/config.json
ranks=1 refuse 73 'would replace a file of read' -- import read -o ./read/config.json --force
ranks='1 4' refuse 73 'is there already' -- export-weights model-1.h5 --to safetensors -o model-out --force
ranks=1 refuse 73 --force -- export-weights model-1.h5 --to gguf -o q8-out.gguf
ranks='1 4' refuse 64 'no int8' -- export-weights model-1.h5 --to safetensors -o absent --storage int8
ranks=1 refuse 64 'neither safetensors nor gguf' -- export-weights model-1.h5 --to onnx -o absent
ranks=1 refuse 66 absent.h5 -- export-weights absent.h5 --to gguf -o absent
well "$program" init --preset demo --num-layers 1 --emb-size 8 --ffn-size 8 --num-q-heads 4 --num-kv-heads 4 --key-size 2 -o mlp.h5
ranks='1 4' refuse 65 'biases' -- export-weights mlp.h5 --to gguf -o absent

finish
