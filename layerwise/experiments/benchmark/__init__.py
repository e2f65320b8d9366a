"""How fast this machine trains, and against what."""
