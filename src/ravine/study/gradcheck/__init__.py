"""Are the gradients right?"""
