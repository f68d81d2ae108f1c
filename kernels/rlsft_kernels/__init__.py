"""The op library of rlsft: fused ops for fine-tuning with learned rewards. Needs torch and NumPy alone."""

from __future__ import annotations
