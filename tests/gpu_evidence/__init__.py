"""Proof for GPU kernels on a machine without a GPU: docs/gpu_evidence.md says what it shows and what it cannot."""
