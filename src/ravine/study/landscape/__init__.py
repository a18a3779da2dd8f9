"""What does the loss look like around a solution?"""
