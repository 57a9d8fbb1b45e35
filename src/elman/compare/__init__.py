"""Several models on one text: what is trained, the paired table, and how sure it is."""
