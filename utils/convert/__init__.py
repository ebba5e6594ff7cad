"""Weights of other implementations: their files read without running anything in them, and their layout made ours."""
