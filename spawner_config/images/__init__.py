"""The images and environments that sandboxes and the Hub are made from, and what they cost to make: nothing if
unchanged.
"""
