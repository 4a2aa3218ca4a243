"""The commands of ``fedembed``, one module for each kind of work; ``simulations.cli`` puts them together."""
