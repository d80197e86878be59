"""Report pages of validations: walks, cross-validations, schedules, and pictures of spans."""
