"""An audit of a scenario: train it with canaries, look at it as each adversary would, and test the claim."""
