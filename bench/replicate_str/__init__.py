"""Does STR beat fine-tuning? The second paper's table at small scale, several seeds, intervals, honest controls."""
