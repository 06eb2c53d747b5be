"""The way of the data: scan a folder, sort into buckets, encode once, hand out ordered batches."""
