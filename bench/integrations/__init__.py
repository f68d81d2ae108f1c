"""TRL's trainers with and without `rlsft.integrations.trl.patch()`: time of a step and peak memory."""
