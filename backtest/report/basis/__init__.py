"""What a report rests on: what is modeled, which rules and data, and how to make it again."""
