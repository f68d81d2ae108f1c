"""Does a reward learned from the demonstrations beat fine-tuning on them? Honest controls, several seeds, intervals."""
