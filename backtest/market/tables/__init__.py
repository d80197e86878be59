"""Tables of bars, mark prices, and funding as aligned, checked arrays; all defects at once."""
