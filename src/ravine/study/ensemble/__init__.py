"""What do several networks gain over one?"""
