"""Transaction lists: blocks of rows and positions in long lists."""
