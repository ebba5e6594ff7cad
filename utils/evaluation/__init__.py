"""Evaluation over a list: protocols, baselines, inpainting and measuring, and the files that report it."""
