"""P1 to P7: ways to turn what an interface returns into logits."""
