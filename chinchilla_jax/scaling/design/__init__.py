"""Which run next: what further runs would tell of a forecast, and the cheapest that tell enough."""
