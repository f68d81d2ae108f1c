"""Row kernels of the language-model head for GPUs."""
