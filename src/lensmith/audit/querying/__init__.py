"""What asking costs: contexts to ask with, a meter that keeps to a budget, a log that is never paid twice."""
