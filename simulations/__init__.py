"""Simulated federations on one machine, and the ``fedembed`` command."""
