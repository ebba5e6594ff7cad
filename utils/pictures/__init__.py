"""Completing pictures of any size and kind: files, holes, the list of jobs, and views of the attention."""
