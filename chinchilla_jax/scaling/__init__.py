"""The offline evaluator: scaling laws from any table of runs. NumPy in float64, never JAX."""
