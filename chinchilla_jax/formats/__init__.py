"""How other tools hold our models: names and orders of arrays, configurations, tokenizers."""
