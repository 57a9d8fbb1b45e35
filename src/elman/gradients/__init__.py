"""Gradients through time, and what is done to them. The cells' backward steps are in `cells`."""
