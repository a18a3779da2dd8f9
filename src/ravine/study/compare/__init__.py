"""Which of these variants is better, and is the difference real?"""
