"""Bias or variance, and what next?"""
