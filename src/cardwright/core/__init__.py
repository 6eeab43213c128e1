"""Pure core: values in, values out; no clock, no randomness, no float, no input or output."""
