"""From runs to fits: the loss surface, iso-FLOP minima, the envelope."""
