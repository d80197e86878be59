"""Many accounts taken through the markets side by side."""
