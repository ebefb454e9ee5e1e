"""What a technique is worth in dense models: effective-size multipliers and the league table."""
