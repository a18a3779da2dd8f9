"""Ravine against its peers on the same work: each in a process of its own, interleaved, medians and
ratios."""
