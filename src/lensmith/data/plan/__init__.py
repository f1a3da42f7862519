"""A plan: which documents fill each training sequence, written down once before training."""
