"""Speed against named peers: equal first, timed second, in rounds of one run."""
