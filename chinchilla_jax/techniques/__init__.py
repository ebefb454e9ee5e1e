"""What can be varied besides size and tokens: a file each, found by name in one table."""
