"""How good a model is: its perplexity, and an adapter for lm-eval."""

from bitnet_lut.evaluate.perplexity import Like, Perplexity, perplexity

__all__ = ["Like", "Perplexity", "perplexity"]
