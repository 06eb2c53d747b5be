"""The model families: one file each, found by name or by what a base's files say."""
