"""Which learning rates are too low, right, too high?"""
