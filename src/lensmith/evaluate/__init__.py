"""How good an answer is: pages compared by their looks, questions by their options, and the statistics of both."""
