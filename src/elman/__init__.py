"""Elman: recurrent language models, trained in minutes, compared honestly with n-grams."""

__version__ = "0.1.0"
