"""Ravine trains deep networks on PyTorch: techniques, populations, a doctor, pictures."""
