"""Account holders: users, their groups, transitions, balances and deposit accounts."""
