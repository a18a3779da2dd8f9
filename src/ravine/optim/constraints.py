"""Constraints: projections of the weights after each step."""
