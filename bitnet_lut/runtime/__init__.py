"""Running a model: packed weights, sessions, sampling, generation."""
