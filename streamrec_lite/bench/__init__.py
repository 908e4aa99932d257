"""`streamrec bench`: speed and memory, as ratios to named alternatives within one run."""
