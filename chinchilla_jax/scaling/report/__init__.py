"""What the fits say, for a person: sentences, tables, figures, the page."""
