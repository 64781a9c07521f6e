"""Gradients against finite differences: the checks of `flambeau.autograd`, where tests look for them."""

from ..autograd.gradcheck import GradcheckError, gradcheck, gradgradcheck

__all__ = ["GradcheckError", "gradcheck", "gradgradcheck"]
