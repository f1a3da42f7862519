"""What tests of several folders share: tiny models, fake servers, and runs of them."""
