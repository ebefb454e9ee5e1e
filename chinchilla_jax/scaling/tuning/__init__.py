"""Laws of hyper-parameters: the best rate, batch and weight decay, and what missing them costs."""

RATE, BATCH, DECAY = "learning_rate", "batch", "weight_decay"
SETTINGS = (BATCH, RATE, DECAY)  # names of --laws; each best value may depend on those before it
