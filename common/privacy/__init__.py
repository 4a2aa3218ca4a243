"""Everything a privacy proof depends on, and nothing else: plan, accounting, noise, clipping, the release gate."""
