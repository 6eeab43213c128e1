"""Controls: spend controls, and the groups and lists that they refer to."""
