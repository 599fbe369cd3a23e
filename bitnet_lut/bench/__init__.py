"""Measuring the speed of models and kernels, compared with the roofs of the machine."""
