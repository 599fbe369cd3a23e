"""Measuring speed so that it can be believed: beside the roofs of the machine."""
