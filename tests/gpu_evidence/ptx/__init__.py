"""Emulator of the PTX that Triton and nvcc emit: runs compiled kernels on CPU memory and checks every access."""
