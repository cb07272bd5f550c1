#!/usr/bin/env Rscript
# Where the time went, in R with rhdf5 (Debian: r-bioc-rhdf5): seconds of each phase by rank, and its share.
#
#   examples/phases.R TRACE.h5
library(rhdf5)
path <- commandArgs(trailingOnly = TRUE)[1]
# R keeps the first axis together, HDF5 the last: [layer, rank, phase] in the file is [phase, rank, layer] here.
seconds <- h5read(path, "phase_seconds")
outside <- h5read(path, "outer_seconds") # [phase, rank]
phase <- h5read(path, "phase")
total <- apply(seconds, c(1, 2), sum) + outside
colnames(total) <- paste0("rank", h5read(path, "rank"))
table <- data.frame(phase = phase, total, share = rowSums(total) / sum(total))
print(table[order(-table$share), ], row.names = FALSE, digits = 6)
