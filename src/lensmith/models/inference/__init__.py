"""From a model to answers: prompts, one batched decoder, and a model in this process as an endpoint."""
