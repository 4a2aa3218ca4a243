"""What a site runs: a folder with keys, policy, data description and ledger, and the processes over it."""
