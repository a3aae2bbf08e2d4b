"""Encoders as sources of features: whole volumes of a raw folder, or single places in them."""
