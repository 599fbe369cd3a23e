"""How models that come with bitnet_lut were made. Not part of the installed package."""
