"""Transaction lists: blocks and positions of long lists, and the lists of accounts."""
