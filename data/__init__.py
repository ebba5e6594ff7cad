"""From files on the disk to training batches; nothing here knows Paddle."""
