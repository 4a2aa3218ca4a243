"""What an operator runs: a folder with keys and settings, the processes over it, the sites and the runs in it."""
