"""The exceptions of the package."""


class FormatError(ValueError):
    """A file is damaged, unsupported or contradicts itself; the text names file and place."""


class NumericsError(ArithmeticError):
    """A forward pass gave NaN or Inf; the text names the first layer and op where it appeared."""


class GrammarError(ValueError):
    """A response format is malformed or cannot be followed; the text says why."""
