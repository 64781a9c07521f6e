"""`flambeau.compile`: a function traced once into a graph, made faster, and replayed without dispatch."""

from .compiled import Compiled, compile

__all__ = ["Compiled", "compile"]
