"""Memory traffic of our kernels beside the peers', counted without a GPU: `python -m bench.gpu_evidence`."""
