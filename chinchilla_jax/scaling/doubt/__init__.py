"""What the runs leave open: uncertainty, hold-out, diagnosis."""
