"""The exceptions of the package."""


class FormatError(ValueError):
    """A file is damaged, unsupported or contradicts itself; the text names file, place and value."""


class NumericsError(ArithmeticError):
    """A forward pass produced NaN or Inf; the text names the first layer and op where it appeared."""
