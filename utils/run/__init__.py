"""What a training run needs around the updates: its folder, state, signals, ranks and previews."""
