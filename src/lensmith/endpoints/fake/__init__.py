"""The public fake: a language model that is a formula, as an endpoint and behind a server of any dialect."""
