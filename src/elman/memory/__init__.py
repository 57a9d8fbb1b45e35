"""Where a trained model's memory ends: usable context."""
