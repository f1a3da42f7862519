"""Ways to turn what an interface returns into logits.

Read `base` (what every reader gives) and `choose` (which reader, from what a probe found), then the readers: `direct`
(P1 and P2), `forced` (P4a, P4b and P5), `top_bias` (P3 and P6) and `greedy` (P7) with `intervals`. `names` reads by id
where answers name tokens by text.
"""
