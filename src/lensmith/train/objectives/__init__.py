"""What is minimised: batches and losses that the training loop is given."""
