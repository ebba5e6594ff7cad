"""Evaluation over a list: protocols, baselines, measuring, and the files that report it."""
