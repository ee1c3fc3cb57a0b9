"""Tasks: a start distribution, what is observed, and a reward, over a physics."""
