"""Networks and losses of DeepFill v1; each fact of the paper is in the file that bears its name."""
