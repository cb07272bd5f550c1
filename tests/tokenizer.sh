#!/bin/bash
# tests/tokenizer.sh: text by a SentencePiece model: the ids and the text of SentencePiece's own commands, bytes that are no
# character, characters of several tokens, files that are no model, and pieces in the trace and the report.
#
#   tokenizer.sh PROGRAM SOURCES SCRATCH
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh" "$@"
# ---- a build without SentencePiece refuses, whatever else it is told; the rest works ----
with=$program program=${WITHOUT:?}
: >any.model
refuse 64 --tokenizer 'has no SentencePiece' -- tokenize --tokenizer any.model text
refuse 64 --tokenizer 'has no SentencePiece' -- run --preset tiny --tokenizer any.model --prompt text
ranks=1 refuse 64 --tokenizer 'has no SentencePiece' -- tokenize --tokenizer absent text
well "$program" run --preset tiny --prompt text
program=$with
if [ "$failures" -gt 0 ]; then finish; fi

need jq spm_train spm_encode spm_decode
python_with h5py xarray h5netcdf

cat "$sources/README.md" "$sources/data/prompt.txt" >words
{
    spm_train --input=words --model_prefix=m --vocab_size=500 --byte_fallback=true --hard_vocab_limit=false &&
        spm_train --input=words --model_prefix=plain --vocab_size=300 --model_type=bpe --hard_vocab_limit=false
} >"$logs/train" 2>&1 || skip "spm_train cannot train: $(tail -n 1 "$logs/train")"
"$program" tokenize --tokenizer m.model a >"$logs/out" 2>&1
if grep -q 'has no SentencePiece' "$logs/out"; then skip 'this build has no SentencePiece'; fi

# expect WHAT EXPECTED SEEN
expect() {
    checks=$((checks + 1))
    if [ "$2" != "$3" ]; then fail "$1" "$2" "$3"; fi
}

# The column of a table as CSV, one line a prompt.
ids_by_prompt() { tail -n +2 | awk -F, '{ if ($1 != last && NR > 1) printf "\n"; else if (NR > 1) printf " "; printf "%s", $3; last = $1 } END { printf "\n" }'; }

# ---- the ids and the text of SentencePiece's commands ----
{
    grep -vE '^[[:space:]]*$' words | head -n 150
    printf 'na\xc3\xafve \xf0\x9f\x98\x80 \xce\xb1\xce\xb2 caf\xc3\xa9\n  two  blanks  \nof %s and <s> in text\n' 'a	tab'
} >lines
for model in m plain; do
    "$program" tokenize --tokenizer $model.model --file lines -o csv | ids_by_prompt >ours
    spm_encode --model=$model.model --output_format=id <lines >theirs
    expect "tokenize --file lines by $model" "$(cat theirs)" "$(cat ours)"
done
spm_encode --model=m.model --output_format=id <lines | tail -n 25 >some
while read -r ids; do
    text=$("$program" tokenize --tokenizer m.model --ids "$ids" | sed '1,/^text:$/d')
    expect "tokenize --ids $ids" "$(spm_decode --model=m.model --input_format=id <<<"$ids")" "$text"
done <some

# ---- bytes that are no character, there and back; a model without byte pieces refuses them by line and byte ----
printf 'good\n' >bytes
printf 'a \xff\xc3 b\xe2\x96 c\x80\n' | tee one >>bytes
ids=$("$program" tokenize --tokenizer m.model --file one -o csv | ids_by_prompt)
"$program" tokenize --tokenizer m.model --ids "$ids" | sed '1,/^text:$/d' >back
check 'bytes that are not UTF-8, there and back' 'the same bytes' cmp one back
refuse 65 'bytes: line 2: byte 3, 0xff' '<0xFF>' plain.model -- tokenize --tokenizer plain.model --file bytes

# ---- control pieces ----
bos=$(awk '$1 == "<s>" { print NR - 1 }' m.vocab)
expect '--bos' "$bos $(spm_encode --model=m.model --output_format=id <<<'A router')" \
    "$("$program" tokenize --tokenizer m.model --bos 'A router' -o csv | ids_by_prompt)"
expect '--special-tokens' "$bos $(spm_encode --model=m.model --output_format=id <<<'A router')" \
    "$("$program" tokenize --tokenizer m.model --special-tokens '<s>A router' -o csv | ids_by_prompt)"

# ---- runs: the prompt's ids, pieces in the trace and the report, the same bits by text and by numbers ----
prompt='A router chooses; na\xc3\xafve.'
prompt=$(printf '%b' "$prompt")
ids=$(spm_encode --model=m.model --output_format=id <<<"$prompt")
size=$(wc -l <m.vocab) # and one token more, without a piece
model=(run --preset tiny --vocab-size $((size + 1)) --generate 20 --temperature 2 --force)
well mpirun -n 4 "$program" "${model[@]}" --tokenizer m.model --prompt "$prompt" --trace text.h5
cp "$logs/out" printed
well "$program" "${model[@]}" --tokens "$ids" --trace numbers.h5
check 'text and its numbers' 'one trace' "$program" compare text.h5 numbers.h5
well "$program" report text.h5 -o text.html
cat >look.py <<'P'
import sys, h5py, xarray
pieces = [line.split("\t")[0] for line in open("m.vocab", encoding="utf-8")]
size = len(pieces)
pieces += [""]
with h5py.File("text.h5") as f:
    assert [p.decode() for p in f["token_text"][:]] == pieces, "h5py reads other pieces"
    ids = [int(i) for i in f["token_ids"][:]]
trace = xarray.open_dataset("text.h5", engine="h5netcdf")
assert trace.token_text.dims == ("vocab",) and list(trace.token_text.values) == pieces, "xarray reads other pieces"
page = open("text.html", encoding="utf-8").read()
for i in ids[:5]:
    assert ", %s (%d)" % (pieces[i].replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"), i) in page, pieces[i]
# What was streamed: all bytes of the run's tokens after the prompt, and one more token, which was chosen but not run.
def meaning(i):
    piece = pieces[i]
    if piece in ("<s>", "</s>"): return b""
    if piece == "<unk>": return " \u2047 ".encode()
    if piece.startswith("<0x"): return bytes([int(piece[3:5], 16)])
    return piece.replace("\u2581", " ").encode()
text = b"".join(meaning(i) for i in ids[int(sys.argv[1]):] if i < size)
assert any(pieces[i].startswith("<0x") for i in ids), "no byte piece was met"
printed = open("printed", "rb").read().split(b"\ngenerated:\n")[1]
assert all(pieces[i] for i in ids), "the token without a piece was drawn"
assert printed.startswith(text), (text, printed[:200])
P
check 'token_text by h5py and xarray; the report; what was streamed' 'the pieces of m.vocab' "$python" look.py "$(wc -w <<<"$ids")"

first=${ids%% *}
expect 'inspect token 0' "$(sed -n "$((first + 1))p" m.vocab | cut -f 1)" \
    "$("$program" inspect text.h5 token 0 -o json | jq -r '.. | objects | select(.token_id? == '"$first"' and .sequence? == 0) | .text' | head -n 1)"

# ---- a character of several tokens comes out with its last; bytes that are none as soon as that is known ----
cat >streamed.py <<'P'
import subprocess, sys
vocab = [line.split("\t")[0] for line in open("m.vocab", encoding="utf-8")]
byte = {int(piece[3:5], 16): i for i, piece in enumerate(vocab) if piece.startswith("<0x")}
def streamed(ids):
    lines = subprocess.run([sys.argv[1], "m.model", *map(str, ids)], check=True, capture_output=True, text=True).stdout.split("\n")
    return [bytes.fromhex(line) for line in lines[:-1]]
text = "na\u00efve \U0001f600 \u03b1\u03b2 caf\u00e9 \u4e2d"
seen = streamed(sys.argv[2].split())
assert b"".join(seen) == text.encode(), seen
for part in seen: part.decode("utf-8")
assert seen.count(b"") >= 3 + 2, seen  # of the emoji three bytes wait, of the ideograph two
a = vocab.index("a")
assert streamed([a, byte[0xff], a]) == [b"a", b"\xff", b"a", b""]
assert streamed([a, byte[0xe2], byte[0x96], a]) == [b"a", b"", b"", b"\xe2\x96a", b""]
assert streamed([a, byte[0xf0], byte[0x9f], byte[0xc3], byte[0xa9]]) == [b"a", b"", b"", b"\xf0\x9f", b"\xc3\xa9", b""]
assert streamed([a, byte[0xe2], byte[0x96]]) == [b"a", b"", b"", b"\xe2\x96"]
P
check 'streaming, token by token' 'whole characters' "$python" streamed.py "${SPEECH:?}" \
    "$(printf 'na\xc3\xafve \xf0\x9f\x98\x80 \xce\xb1\xce\xb2 caf\xc3\xa9 \xe4\xb8\xad\n' | spm_encode --model=m.model --output_format=id)"

# ---- what is refused ----
tiny=(run --preset tiny --prompt words)
refuse 65 m.model "has $(wc -l <m.vocab) pieces" 'vocab_size is 256' -- "${tiny[@]}" --tokenizer m.model
refuse 66 absent 'No such file' -- "${tiny[@]}" --tokenizer absent
refuse 66 . 'Is a directory' -- "${tiny[@]}" --tokenizer .
: >empty
head -c 3000 m.model >short
head -c 20000 /dev/zero >zeros
for file in empty short zeros words text.h5; do
    refuse 65 "$file" 'SentencePiece' -- "${tiny[@]}" --vocab-size 600 --tokenizer $file
done
ranks=1
refuse 64 --bos --tokenizer -- "${tiny[@]}" --bos
refuse 64 --bos --tokens -- run --preset tiny --vocab-size 512 --tokens 1 --bos --tokenizer m.model
refuse 64 --stop-token '"no such piece"' -- "${tiny[@]}" --vocab-size 512 --tokenizer m.model --generate 1 --stop-token 'no such piece'
refuse 64 'one of' -- tokenize --tokenizer m.model
refuse 64 --tokenizer -- tokenize text
refuse 64 'token 99999' -- tokenize --tokenizer m.model --ids 99999
finish
