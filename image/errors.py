"""
What the image tools raise on purpose: one error, whose message is a sentence for the operator.
"""


class ImageError(ValueError):
    """An image, or what one is made of, is not what it must be; the message names the field."""
