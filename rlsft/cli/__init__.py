"""The command line: every command from the same config classes as the Python API, no logic of its own."""
