"""Stage 3, second half: training spec, network, lanes, loop, checkpoints, ledger."""
