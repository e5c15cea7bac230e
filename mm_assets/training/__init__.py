"""Stage ``training``, second half: spec, network, lanes, loop, checkpoints, ledger."""
