#!/bin/bash
# The load of every expert in every layer as a picture, with gnuplot: h5dump writes the numbers, gnuplot reads them.
#
#   examples/load.sh TRACE.h5 PICTURE.svg
set -euo pipefail
trace=$1 picture=$2
numbers=$(mktemp)
trap 'rm -f "$numbers"' EXIT
h5dump -d /expert_load -y -w 0 -o "$numbers" "$trace" >/dev/null # a line a layer, commas between
gnuplot <<GNUPLOT
set terminal svg size 800,400 background "white"
set output "$picture"
set xlabel "expert"
set ylabel "layer"
set cblabel "token rows"
set palette defined (0 "#440154", 1 "#355f8d", 2 "#22a884", 3 "#fde725")
set autoscale fix
set yrange [] reverse
plot "< tr -d , <$numbers" matrix with image pixels notitle
GNUPLOT
