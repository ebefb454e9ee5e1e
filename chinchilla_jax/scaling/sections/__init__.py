"""From what was computed to the sections of the record, `fits.Fits`."""
