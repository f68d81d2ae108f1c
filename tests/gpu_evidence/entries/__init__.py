"""Entries of the registry, one file a family of kernels."""
