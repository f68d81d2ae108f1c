"""The parts of rlsft inside other people's trainers: one module a library, imported on request only."""
