"""The books: chart of accounts and what is always true of them."""
