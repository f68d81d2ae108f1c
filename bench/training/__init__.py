"""Whole training steps beside those of TRL and of a plain loop: time a step, tokens a second, peak memory."""
