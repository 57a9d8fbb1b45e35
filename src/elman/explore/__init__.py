"""The local page of `elman explore`: what happens inside models, on the user's own text.

Reading order: presets, export; then the server: access, gate, questions, reference, answers, worker, work,
connections, server. Nothing is imported here: the server needs an extra.
"""
