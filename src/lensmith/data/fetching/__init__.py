"""Pictures that are given as addresses: fetched once, with a ledger of what came of each address."""
