"""The page of a run: what its folder holds so far, as one HTML file that loads nothing."""
