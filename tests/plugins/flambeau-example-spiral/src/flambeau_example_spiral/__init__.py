"""Radial basis networks that tell spirals apart."""
