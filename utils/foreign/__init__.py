"""Weights of other programs: their files read without running anything in them, and their layout made ours."""
