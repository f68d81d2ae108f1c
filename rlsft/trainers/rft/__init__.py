"""RFT (arXiv 2405.17888, algorithm 1): rounds of samples, an explicit reward on them, and a better policy."""
