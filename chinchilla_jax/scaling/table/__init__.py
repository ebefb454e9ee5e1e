"""From any table of training runs to columns of float64, cells and conditions."""
