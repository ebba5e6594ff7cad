"""Configuration, checkpoints, logs, metrics and pictures: what surrounds the models and the data."""
