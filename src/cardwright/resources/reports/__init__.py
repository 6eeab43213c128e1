"""Reports: the settlement report."""
