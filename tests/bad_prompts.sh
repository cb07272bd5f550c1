#!/bin/bash
# tests/bad_prompts.sh: prompts that are empty, too long, no tokens or not in the vocabulary, in an option and in a file.
#
#   bad_prompts.sh PROGRAM SOURCES SCRATCH
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh" "$@"

model=(run --preset tiny --num-layers 1 --vocab-size 200 --sequence-len 8 --trace t.h5)

# ---- in an option ----
refuse 64 '--prompt' 'empty' -- "${model[@]}" --prompt ''
refuse 64 '--tokens' 'empty' -- "${model[@]}" --tokens ''
refuse 64 '--tokens' 'empty' -- "${model[@]}" --tokens ' , ,'
for tokens in x -1 1.5 2147483648 99999999999999999999 0x10 1e3 '#'; do
    ranks=1 refuse 64 '--tokens' "\"$tokens\"" 'not a token number' -- "${model[@]}" --tokens "1,$tokens,2"
done
ranks=4 refuse 64 '--tokens' '"1;2"' 'not a token number' -- "${model[@]}" --tokens '1;2'
refuse 64 '--tokens' 'prompt 0, place 2' 'token 200' '0 to 199' -- "${model[@]}" --tokens 1,199,200
refuse 64 '--tokens' 'token 2147483647' '0 to 199' -- "${model[@]}" --tokens 2147483647
refuse 64 '--prompt' 'prompt 0, place 3' 'token 206' '0 to 199' -- "${model[@]}" --prompt $'abc\xce\xb1'
refuse 64 '--tokens' 'prompt 0' '9 tokens' 'sequence_len is 8' -- "${model[@]}" --tokens 1,2,3,4,5,6,7,8,9
refuse 64 '--prompt' 'prompt 0' '17 tokens' 'sequence_len is 8' -- "${model[@]}" --prompt 'a prompt too long'
well "$program" "${model[@]::${#model[@]}-2}" --tokens 1,2,3,4,5,6,7,199
well "$program" "${model[@]::${#model[@]}-2}" --prompt 'eight by'

# ---- in a file ----
: >none
printf '\n  \n\t\r\n' >blank
printf '1 2 3\n\n4 five 6\n' >words
printf '1 2\n3 4 200\n' >outside
printf 'short\nlonger than eight\n' >long
printf '1 2\000 3\n' >nul
printf 'a\xff\n' >byte
head -c 3000000 /dev/zero | tr '\0' '1' >digits
mkdir folder
for option in --prompt-file --tokens-file; do
    refuse 66 absent 'No such file' -- "${model[@]}" "$option" absent
    refuse 66 folder 'Is a directory' -- "${model[@]}" "$option" folder
    ranks=1 refuse 66 'No such file' -- "${model[@]}" "$option" ''
    refuse 65 none 'no prompt' -- "${model[@]}" "$option" none
    refuse 65 blank 'every line is blank' -- "${model[@]}" "$option" blank
done
refuse 65 'words: line 3' '"five"' 'not a token number' -- "${model[@]}" --tokens-file words
refuse 65 outside 'prompt 1, place 2' 'token 200' '0 to 199' -- "${model[@]}" --tokens-file outside
refuse 65 long 'prompt 1' '17 tokens' 'sequence_len is 8' -- "${model[@]}" --prompt-file long
refuse 65 'nul: line 1' 'NUL' -- "${model[@]}" --tokens-file nul
refuse 65 byte 'place 1' 'token 255' '0 to 199' -- "${model[@]}" --prompt-file byte
ranks=1 refuse 65 'digits: line 1' 'not a token number' -- "${model[@]}" --tokens-file digits
ranks=1 refuse 65 digits '3000000 tokens' 'sequence_len is 8' -- "${model[@]}" --prompt-file digits

finish
