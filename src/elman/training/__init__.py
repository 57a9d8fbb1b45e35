"""What the training loop (train.py) is made of: options, learning rate, optimizer, device, events."""
