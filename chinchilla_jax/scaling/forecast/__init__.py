"""From fits to answers: what forecasts rest on, which of it to believe, and what it says."""
