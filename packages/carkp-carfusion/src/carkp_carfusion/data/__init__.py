"""Data: raw frames -> crops -> a packed data set -> samples and batches."""
