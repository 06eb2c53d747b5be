"""Adapters: the kinds of trained parts that are put into a base model, one file each."""
