"""What does the network look at?"""
