"""What the experiments of both papers share: rows on file, intervals over seeds."""
