"""How the demonstration model was made: its text, its network, its training and its examination.

Run from the root of a clone in which bitnet_lut is installed as CONTRIBUTING.md says: ``train``
makes the model, ``evaluate`` asks it held-out questions, ``corpus`` writes the text of both.
"""
