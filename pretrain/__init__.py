"""Stage 1: from a folder of raw CT volumes to encoder weights."""
