"""The toolbox: what every floor needs and what has no word of our trade in it."""
