"""One file for each API resource: shapes, rules, queries, actions, routes."""
